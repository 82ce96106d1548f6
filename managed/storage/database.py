"""Opening the database: SQLite embedded, PostgreSQL in production, one code path for both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from managed.domain.errors import Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
# Several tries fit into a third of a usual lease (30 s), the time in which it is to be renewed.
PATIENCE_SECONDS = 4.0


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
        pool_pre_ping=True,
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

    return engine


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
    """Bring the schema to this version; a database that is up to date is left as it is."""
    from alembic import command  # only here: it takes long to load, and most processes never do
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with writing(engine) as connection:
        take_time(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def schema_is_behind(engine: Engine) -> bool:
    """Does the database lack a migration of this version? One that is further on is fine: in an
    upgrade the schema goes ahead of the processes.
    """
    with reading(engine) as connection:
        present = connection.execute(text("SELECT version_num FROM alembic_version")).scalars()
        return not set(present).isdisjoint(_superseded())


@cache
def _superseded() -> frozenset[str]:
    """The migrations of this version but the last."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))
    heads = set(scripts.get_heads())
    return frozenset(s.revision for s in scripts.walk_revisions() if s.revision not in heads)


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
        raise DatabaseUnavailable(
            f"the database answered: {type(error.orig).__name__}: {error.orig}", retry_after=1
        ) from error
