"""Opening the database: SQLite embedded, PostgreSQL in production, one code path for both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from managed.domain.errors import Unavailable
from managed.storage.schema import is_ahead, upgrade

log = structlog.get_logger()

# Several tries fit into a third of a usual lease (30 s), the time in which it is to be renewed.
PATIENCE_SECONDS = 4.0
_IDLE_SECONDS = 1.0
_SERVED_AT = "served_at"


class Turn(IntEnum):
    """What one transaction at a time does. Numbers of our own: PostgreSQL's advisory locks have no
    names.
    """

    MIGRATION = 0x6D616E61676564
    NOTIFICATION_TARGET = 0x6D616E61676565


class DatabaseUnavailable(Unavailable):
    code = "database-unavailable"
    title = "The database does not answer"


def open_database(url: str, patience: float = PATIENCE_SECONDS) -> Engine:
    """An engine for the URL. Nothing waits longer than `patience` seconds for a connection, a
    lock or a statement: then DatabaseUnavailable comes.
    """
    if url.startswith("sqlite"):
        return _open_sqlite(url, patience)
    return _open_postgresql(url, patience)


def _open_postgresql(url: str, patience: float) -> Engine:
    milliseconds = int(patience * 1000)
    engine = create_engine(
        url,
        pool_timeout=patience,
        connect_args={
            "connect_timeout": max(2, round(patience)),
            "tcp_user_timeout": milliseconds,
            "keepalives_idle": max(1, round(patience)),
            "keepalives_interval": 1,
            "keepalives_count": 3,
        },
    )

    @event.listens_for(engine, "connect")
    def _limit(connection: Any, _record: object) -> None:
        connection.execute(f"SET statement_timeout = {milliseconds}")
        connection.commit()

    _ask_idle_connections(engine)
    return engine


def _ask_idle_connections(engine: Engine) -> None:
    """Whether a connection still lives is asked before its use, unless it served a moment ago: the
    question costs three round trips, which is more than many a transaction.
    """

    @event.listens_for(engine, "checkin")
    def _note(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_SERVED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ask(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - record.info.get(_SERVED_AT, time.monotonic()) < _IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("it was idle and is lost") from error


def _open_sqlite(url: str, patience: float) -> Engine:
    """With WAL, foreign keys, and write locks taken at BEGIN, so that a transaction which reads
    and then writes cannot fail half-way.
    """
    engine = create_engine(url, pool_timeout=patience, connect_args={"timeout": patience})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads_only = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def migrate(engine: Engine) -> None:
    """Bring the schema to this version; a database that is up to date is left as it is, and so is
    one that is further on: in an upgrade a part of the older version may have to start again. Of
    several callers at a time one works.
    """
    with writing(engine) as connection:
        take_time(connection)
        wait_for_turn(connection, Turn.MIGRATION)
        if not is_ahead(connection):
            upgrade(connection)


def wait_for_turn(connection: Connection, turn: Turn) -> None:
    """Until this transaction ends nobody else passes here. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": turn.value})


def inserting(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that can be told what to do about rows that are there already."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def take_time(connection: Connection) -> None:
    """Lets the statements of this transaction take as long as they need."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that may write."""
    with _translated(), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads: on SQLite it waits for no writer."""
    with _translated(), engine.connect() as plain:
        connection = plain.execution_options(reads_only=True)
        with connection.begin():
            yield connection


@contextmanager
def reading_snapshot(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads, as long as it likes, and sees the database as it is at its
    first statement. Others go on writing beside it.
    """
    with _translated(), engine.connect() as plain:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        is_postgresql = engine.dialect.name == "postgresql"
        connection = plain.execution_options(reads_only=True, **(options if is_postgresql else {}))
        with connection.begin():
            take_time(connection)
            yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeout as error:
        raise DatabaseUnavailable(
            "all connections to the database are in use", retry_after=1
        ) from error
    except DBAPIError as error:
        # What it says names hosts and users, and this goes to whoever asked.
        log.warning("database_error", error=f"{type(error.orig).__name__}: {error.orig}")
        raise DatabaseUnavailable(
            f"the database answered with an error ({type(error.orig).__name__})", retry_after=1
        ) from error
