"""What an event says to people: one line with a word for how good or bad it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from managed.domain.text import without_controls

_LONGEST_LINE: Final = 4000


class Tone(StrEnum):
    """How a reader is to take it."""

    PLAIN = "plain"
    GOOD = "good"
    NOTICE = "notice"
    BAD = "bad"


@dataclass(frozen=True)
class EventLine:
    """`word` says what kind of event it is, empty for the raw output of a program."""

    tone: Tone
    word: str
    text: str


_LINES: Final[Mapping[str, tuple[Tone, str, str]]] = {
    "job_submitted": (Tone.PLAIN, "asked for", "{kind} by {by}"),
    "step_started": (Tone.PLAIN, "begins", "{step}"),
    "step_done": (Tone.GOOD, "done", "{step}"),
    "step_waiting": (Tone.PLAIN, "waits", "{step}: {for}"),
    "step_retry": (Tone.NOTICE, "tries again", "{step}: {detail}"),
    "step_failed": (Tone.BAD, "failed", "{step}: {detail}"),
    "undo_begun": (Tone.BAD, "ends as {verdict}", "{detail}"),
    "undo_started": (Tone.NOTICE, "takes back", "{step}"),
    "undo_failed": (Tone.BAD, "could not take back", "{step}: {detail}"),
    "warning": (Tone.NOTICE, "warning", "{message}"),
    "cancel_requested": (Tone.NOTICE, "is to stop", "{reason}"),
    "job_ended": (Tone.PLAIN, "ended", "{status}"),
}
_ENDINGS: Final = {"succeeded": Tone.GOOD, "failed": Tone.BAD, "cancelled": Tone.NOTICE}


def event_line(kind: str, data: Mapping[str, Any]) -> EventLine:
    """The line of an event. What servers say stands in it as text, without control characters."""
    tone, word, text = Tone.PLAIN, "", ""
    if kind in _LINES:
        tone, word, text = _LINES[kind]
        word, text = (part.format_map(_Said(data)) for part in (word, text))
        text = text.removesuffix(": ").removeprefix(": ")
    elif (progress := progress_sentence(kind, data)) is not None:
        word, text = "progress", progress
    elif isinstance(lines := data.get("lines"), list):
        text = "\n".join(str(line) for line in lines)
    else:
        text = str(data.get("text") or data.get("detail") or kind.replace("_", " "))
    if kind == "job_ended":
        tone = _ENDINGS.get(str(data.get("status")), tone)
    return EventLine(tone, without_controls(word), without_controls(text)[:_LONGEST_LINE])


class _Said(dict[str, Any]):
    """What an event says of itself; nothing where it says nothing."""

    def __missing__(self, key: str) -> str:
        return ""


def progress_sentence(kind: str, data: Mapping[str, Any]) -> str | None:
    """A short sentence for events that tell progress; None for all others."""
    sentence = _progress(kind, data)
    return None if sentence is None else without_controls(sentence)


def _progress(kind: str, data: Mapping[str, Any]) -> str | None:
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
