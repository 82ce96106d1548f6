"""A job's live log for people: a line per step, and one line of progress that changes in place.

What servers say stands in it as text: no markup of ours and no control character of theirs works.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from rich.console import Console
from rich.status import Status
from rich.text import Text

from managed.domain.event_lines import progress_sentence
from managed.domain.text import without_controls

# For each event that is a line: what stands first, its style, and what follows.
_LINES: Final = {
    "step_started": ("{step}", "bold", ""),
    "step_done": ("done", "green", " {step}"),
    "step_retry": ("again", "yellow", " {step}: {detail}"),
    "step_failed": ("failed", "red", " {step}: {detail}"),
    "undo_started": ("taking back", "yellow", " {step}"),
    "undo_failed": ("could not take back", "red", " {step}: {detail}"),
    "warning": ("warning", "yellow", " {message}"),
    "cancel_requested": ("cancel requested", "yellow", " {reason}"),
}
_SECONDS_BETWEEN_LINES: Final = 20.0


class JobDisplay:
    """Give every event to `show`. With `verbose` the raw output is printed too.

    Where lines can't change in place, in a log, progress gets a line now and then.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._title = title
        self._verbose = verbose
        self._time = clock
        self._began = clock()
        self._last_line = self._began
        self._status = Status(title, console=console)

    def __enter__(self) -> JobDisplay:
        self._status.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._status.stop()

    def show(self, event: Mapping[str, Any]) -> None:
        """One event as the API gives it: `type`, and its data."""
        kind, data = str(event["type"]), dict(event.get("data") or {})
        if kind in _LINES:
            self._console.print(self._clock(), _line(kind, data), highlight=False)
        elif (progress := progress_sentence(kind, data)) is not None:
            self._status.update(Text.assemble(self._clock(), f" {self._title}: {progress}"))
            if not self._console.is_terminal and (kind.endswith("_step") or self._is_quiet()):
                self._last_line = self._time()
                self._console.print(self._clock(), Text(f"  {progress}"), highlight=False)
        elif self._verbose:
            for line in data.get("lines", [data.get("text", "")]):
                self._console.print(Text(f"        {without_controls(str(line))}"))

    def _is_quiet(self) -> bool:
        return self._time() - self._last_line >= _SECONDS_BETWEEN_LINES

    def _clock(self) -> Text:
        return Text(f"{self._time() - self._began:6.1f} s", style="dim")


def _line(kind: str, data: Mapping[str, Any]) -> Text:
    first, style, rest = _LINES[kind]
    values = {"step": "", "detail": "", "message": "", "reason": ""} | {
        name: without_controls(str(value)) for name, value in data.items()
    }
    return Text.assemble((first.format_map(values), style), rest.format_map(values))
