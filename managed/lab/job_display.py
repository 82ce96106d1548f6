"""A job's live log for people: a line per step, and one line of progress that changes in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from rich.console import Console
from rich.status import Status

_LINES: Final = {
    "step_started": "[bold]{step}[/]",
    "step_done": "[green]done[/] {step}",
    "step_retry": "[yellow]again[/] {step}: {detail}",
    "step_failed": "[red]failed[/] {step}: {detail}",
    "undo_started": "[yellow]taking back[/] {step}",
    "undo_failed": "[red]could not take back[/] {step}: {detail}",
    "warning": "[yellow]warning[/] {message}",
    "cancel_requested": "[yellow]cancel requested[/] {reason}",
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
            self._console.print(f"{self._clock()} {_filled(_LINES[kind], data)}", highlight=False)
        elif (progress := progress_of(kind, data)) is not None:
            self._status.update(f"{self._clock()} {self._title}: {progress}")
            if not self._console.is_terminal and (kind.endswith("_step") or self._is_quiet()):
                self._last_line = self._time()
                self._console.print(f"{self._clock()}   {progress}", highlight=False)
        elif self._verbose:
            for line in data.get("lines", [data.get("text", "")]):
                self._console.print(f"        {line}", markup=False, highlight=False)

    def _is_quiet(self) -> bool:
        return self._time() - self._last_line >= _SECONDS_BETWEEN_LINES

    def _clock(self) -> str:
        return f"[dim]{self._time() - self._began:6.1f} s[/]"


def progress_of(kind: str, data: Mapping[str, Any]) -> str | None:
    """A short sentence for events that tell progress; None for all others."""
    match kind:
        case "playbook_task":
            return f"{data.get('task')}"
        case "patch_progress" | "backup_progress" | "restore_progress" | "check_progress":
            return f"{kind.partition('_')[0]} {data.get('percent', 0)} %"
        case "manifest_progress":
            return f"{data.get('files', 0)} files read"
        case "database_load":
            return f"loading {data.get('kind')} {data.get('name')} {data.get('percent', 0)} %"
        case "health_awaited":
            return f"waiting: {'; '.join(map(str, data.get('coming', [])))}"
        case "backup_step" | "restore_step" | "install_step":
            return str(data.get("name", "")).replace("_", " ")
    return None


def _filled(line: str, data: Mapping[str, Any]) -> str:
    values = {"step": "", "detail": "", "message": "", "reason": "", **data}
    return line.format_map({name: str(value).replace("[", r"\[") for name, value in values.items()})
