"""Fixtures that give tests real cells.

Only tests/conftest.py imports them: a second import would be a second set of fixtures, which would
count its cells from one again beside the first.

The root filesystems are kept between runs in `var/cells` (or MANAGED_TEST_STATE), the cells of a
test session stand in a directory of their own below it and are removed at its end.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from images.sources import resolve_sources
from managed.lab.cell_image import build_cell_root
from managed.lab.cells import Cell, cells_down, start_cell
from tests.support.clean_after import cleaned_after_death

StartCell = Callable[..., Cell]
"""Starts another cell; takes `name`, `release` and start_cell's keyword arguments, all optional."""


@pytest.fixture(scope="session")
def cells_state() -> Path:
    default = Path(__file__).parents[2] / "var" / "cells"
    return Path(os.environ.get("MANAGED_TEST_STATE", default))


@pytest.fixture(scope="session")
def start_test_cell(cells_state: Path) -> Iterator[StartCell]:
    """Cells on request; all of them are removed when the session ends."""
    state = cells_state / f"tests-{os.getpid()}"
    numbers = itertools.count(1)

    def start(name: str = "", release: str = "debian-12", **options: object) -> Cell:
        root = build_cell_root(cells_state, release, resolve_sources(None, None, None, print))
        return start_cell(state, root, name or f"cell-{next(numbers)}", **options)  # type: ignore[arg-type]

    with cleaned_after_death(state):
        try:
            yield start
        finally:
            cells_down(state)
            shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def cell(start_test_cell: StartCell) -> Cell:
    """One Debian 12 cell, shared by all tests of the session."""
    return start_test_cell("shared")
