"""How much disk images, servers and backups of a demo or a test run need, and how much there is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from managed.domain.errors import MissingRequirement

NEEDED_GIB: Final = 12
_GIB: Final = 1024**3


def place_of(state: Path) -> Path:
    """The state folder, or where it will be made."""
    return next(path for path in (state, *state.parents) if path.exists())


def free_gib(place: Path) -> float:
    return shutil.disk_usage(place).free / _GIB


def require_disk_space(state: Path) -> None:
    """MissingRequirement when less than that is free."""
    place = place_of(state)
    free = free_gib(place)
    if free < NEEDED_GIB:
        raise MissingRequirement(
            f"{place} has {free:.1f} GiB free, and {NEEDED_GIB} GiB are needed",
            hint="Free some space, or set MANAGED_STATE_DIR to a larger place.",
        )
