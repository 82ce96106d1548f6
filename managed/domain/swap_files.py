"""Swap files: no backup holds them, a restore makes them anew.

This module also travels to servers inside scripts (see managed.server_scripts): it uses the
standard library of Python 3.9 only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_PATH = 1024
_PATH = re.compile("(/(?!\\.{1,2}(/|\\Z))[^/\0-\x1f\x7f\ud800-\udfff]{1,255})+")


@dataclass(frozen=True)
class SwapFile:
    """A file in use as swap. `size` is in bytes; `uuid` and `label` are empty when unknown."""

    path: str
    size: int
    uuid: str = ""
    label: str = ""


def is_swap_path(path: str) -> bool:
    """Whether a swap file may have this path: absolute, no way out of its tree, plain text."""
    return len(path) <= LONGEST_PATH and _PATH.fullmatch(path) is not None
