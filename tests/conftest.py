"""Fixtures for all tests: databases, both kinds, migrated; cells."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine

from managed.storage.database import migrate, open_database
from tests.support.cells import cell, cells_state, start_test_cell
from tests.support.postgres import empty, postgres

__all__ = ["cell", "cells_state", "start_test_cell"]

_LONGEST = (
    "test_main_job.py",
    "test_patch.py",
    "test_harden.py",
    "test_embedded_service.py",
    "test_systemd_units.py",
    "test_database_loading.py",
    "test_harden_trial.py",
    "test_prepare.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest starts first, so that all processes end at about the same time."""
    begins = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: begins.get(item.path.name, len(_LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def _plain_tracebacks() -> None:
    """In logs, as production writes them. By default structlog draws every variable of every frame,
    which costs a second each time.
    """
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the schema of this version and nothing in it, to be copied."""
    path = tmp_path_factory.mktemp("schema") / "managed.db"
    database = open_database(f"sqlite:///{path}")
    migrate(database)
    database.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A migrated PostgreSQL database, whatever is in it."""
    with postgres() as url:
        engine = open_database(url)
        migrate(engine)
        engine.dispose()
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with nothing in it; every test that uses it runs on SQLite and on a real
    PostgreSQL. Both were migrated once for all tests.
    """
    if request.param == "sqlite":
        migrated: Path = request.getfixturevalue("migrated_file")
        return f"sqlite:///{shutil.copy(migrated, tmp_path / 'managed.db')}"
    url: str = request.getfixturevalue("postgres_url")
    engine = open_database(url)
    empty(engine)
    engine.dispose()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()
