"""The log of a detached run as events: scripts mark structured lines, the rest is plain output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from managed.domain.errors import Json

MARK = "@managed "
_LINES_PER_EVENT = 100


def events_of_log(text: str) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """Event names and data, in order. Runs of plain lines become one "run_output" event each (at
    most 100 lines); a marked line that is no JSON object with an "event" is plain output too.
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
    if not line.startswith(MARK):
        return None
    try:
        document = json.loads(line[len(MARK) :])
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("event"), str):
        return None
    return document.pop("event"), document
