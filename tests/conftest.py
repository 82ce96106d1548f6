"""Fixtures for all tests: databases, both kinds, migrated; cells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from managed.storage.database import migrate, open_database
from tests.support.cells import cell, cells_state, start_test_cell
from tests.support.postgres import postgres

__all__ = ["cell", "cells_state", "start_test_cell"]

_LONGEST = "test_main_job.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest starts first: one process works on it, the other on the rest."""
    items.sort(key=lambda item: item.path.name != _LONGEST)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; every test that uses it runs on SQLite and on a real PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/managed.db"
    url: str = request.getfixturevalue("postgres_url")
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    migrate(engine)
    yield engine
    engine.dispose()
