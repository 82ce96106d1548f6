"""Benches for workflows; the schema is made once and copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from managed.storage.database import migrate, open_database
from tests.support.workflows import WorkflowBench

NewBench = Callable[..., WorkflowBench]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "managed.db"
    database = open_database(f"sqlite:///{path}")
    migrate(database)
    database.dispose()
    return path


@pytest.fixture
def new_bench(tmp_path: Path, empty_database: Path) -> Iterator[NewBench]:
    made: list[WorkflowBench] = []

    def make(**options: bool) -> WorkflowBench:
        path = shutil.copy(empty_database, tmp_path / "managed.db")
        made.append(WorkflowBench(tmp_path, f"sqlite:///{path}", **options))
        return made[-1]

    yield make
    for bench in made:
        bench.database.dispose()


@pytest.fixture
def bench(new_bench: NewBench) -> WorkflowBench:
    """A server on a node of ours; not made yet."""
    return new_bench()
