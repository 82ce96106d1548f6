"""Text that came from a server, made fit for somebody's terminal."""

from __future__ import annotations

from typing import Final

# C0 but tab and newline, DEL, C1: what moves cursors, sets titles, or answers in the reader's name.
_CONTROLS: Final = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")}
_REMOVED: Final = dict.fromkeys(_CONTROLS)


def without_controls(text: str) -> str:
    """`text` without control characters; what stood between them stays readable."""
    return text.translate(_REMOVED)
