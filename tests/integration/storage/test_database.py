"""A database that keeps us waiting is unavailable before a lease can be lost over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import text, update

from managed.storage import database as database_module
from managed.storage.database import (
    PATIENCE_SECONDS,
    DatabaseUnavailable,
    open_database,
    take_time,
    writing,
)
from managed.storage.tables import jobs
from tests.support.jobs import JobBench


@pytest.fixture
def impatient(database: Database, database_url: str) -> Iterator[Database]:
    engine = open_database(database_url, patience=0.5)
    yield engine
    engine.dispose()


def test_patience_is_well_below_a_third_of_the_lease() -> None:
    assert PATIENCE_SECONDS * 2 < 10


@pytest.mark.timeout(60)
def test_nobody_waits_long_for_a_lock(database: Database, impatient: Database) -> None:
    JobBench(database).submit()
    change = update(jobs).values(lease_owner="me")
    with writing(database) as holder:
        holder.execute(change)
        with pytest.raises(DatabaseUnavailable), writing(impatient) as waiting:
            waiting.execute(change)


@pytest.mark.timeout(60)
def test_nobody_waits_long_for_a_connection(impatient: Database) -> None:
    if impatient.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer anyway")
    with ExitStack() as held:
        for _ in range(15):
            held.enter_context(writing(impatient))
        with pytest.raises(DatabaseUnavailable, match="in use"), writing(impatient):
            pass


def test_a_statement_may_take_its_time_where_that_is_said(impatient: Database) -> None:
    if impatient.dialect.name == "sqlite":
        pytest.skip("SQLite knows no such limit")
    with pytest.raises(DatabaseUnavailable), writing(impatient) as hurried:
        hurried.execute(text("SELECT pg_sleep(1)"))
    with writing(impatient) as unhurried:
        take_time(unhurried)
        unhurried.execute(text("SELECT pg_sleep(1)"))


def test_a_connection_that_was_lost_while_idle_is_replaced_before_its_use(
    impatient: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if impatient.dialect.name == "sqlite":
        pytest.skip("SQLite has no connection to lose")
    monkeypatch.setattr(database_module, "_IDLE_SECONDS", 0.0)
    with writing(impatient) as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
    with open_database(str(impatient.url)).begin() as another:
        another.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": backend})
    with writing(impatient) as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != backend
