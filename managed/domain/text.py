"""Text that came from elsewhere, made fit for somebody's terminal."""

from __future__ import annotations

from typing import Final

# C0 but tab and newline, DEL, C1: what moves cursors, sets titles, or answers in the reader's name.
_CONTROLS: Final = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")}
_REMOVED: Final = dict.fromkeys(_CONTROLS)


def without_controls(text: str) -> str:
    """`text` without control characters; what stood between them stays readable."""
    return text.translate(_REMOVED)


def escaped(text: str, keep: str = "") -> str:
    """`text` with what does not print written as Python would, such as \\x1b; `keep` stays."""
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode()
        for one in text
    )
