"""The log of a detached run as events: scripts mark structured lines, the rest is plain output.

A server's root may write into the log what he likes. So only what our scripts say becomes an event
of its own, and nothing that could pass for the engine's word ("step_done", "job_ended").
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Final

from managed.domain.errors import Json

MARK: Final = "@managed "
SCRIPT_EVENTS: Final = frozenset(
    {
        "backup_progress",
        "backup_step",
        "check_progress",
        "database_load",
        "install_step",
        "manifest_progress",
        "patch_pending",
        "patch_progress",
        "patch_stage",
        "read_back_progress",
        "restore_progress",
        "restore_step",
    }
)
# What readers of events count on, whoever wrote the log.
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "percent": (int, float),
    "files": (int,),
    "name": (str,),
    "kind": (str,),
}
_LINES_PER_EVENT: Final = 100
_MARKED_CHARACTERS: Final = 2000


def events_of_log(text: str) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """Event names and data, in order. Runs of plain lines become one "run_output" event each (at
    most 100 lines); a marked line is plain output too unless it is a flat JSON object of at most
    2000 characters with an "event" of SCRIPT_EVENTS, and numbers and names are what they should be.
    """
    plain: list[Json] = []
    for line in text.splitlines():
        marked = _marked_event(line)
        if marked is None:
            plain.append(line)
        if plain and (marked is not None or len(plain) >= _LINES_PER_EVENT):
            yield "run_output", {"lines": plain}
            plain = []
        if marked is not None:
            yield marked
    if plain:
        yield "run_output", {"lines": plain}


def _marked_event(line: str) -> tuple[str, Mapping[str, Json]] | None:
    if not line.startswith(MARK) or len(line) > _MARKED_CHARACTERS:
        return None
    try:
        document = json.loads(line[len(MARK) :])
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    event = document.pop("event", None)
    if not isinstance(event, str) or event not in SCRIPT_EVENTS:
        return None
    return (event, document) if all(_is_good(*item) for item in document.items()) else None


def _is_good(name: str, value: object) -> bool:
    """Text, a number that JSON knows (NaN and Infinity are none), a truth value or null; for a
    name of _TYPES one of its types.
    """
    if name in _TYPES and (isinstance(value, bool) or not isinstance(value, _TYPES[name])):
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
