"""Benches for workflows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.workflows import WorkflowBench

NewBench = Callable[..., WorkflowBench]


@pytest.fixture
def new_bench(tmp_path: Path, migrated_file: Path) -> Iterator[NewBench]:
    made: list[WorkflowBench] = []

    def make(**options: bool) -> WorkflowBench:
        path = shutil.copy(migrated_file, tmp_path / "managed.db")
        made.append(WorkflowBench(tmp_path, f"sqlite:///{path}", **options))
        return made[-1]

    yield make
    for bench in made:
        bench.database.dispose()


@pytest.fixture
def bench(new_bench: NewBench) -> WorkflowBench:
    """A server on a node of ours; not made yet."""
    return new_bench()
