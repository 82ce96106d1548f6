"""Opening the database: SQLite embedded, PostgreSQL in production, one code path for both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from managed.domain.errors import Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
_SQLITE_BUSY_SECONDS = 30


class DatabaseUnavailable(Unavailable):
    code = "database-unavailable"
    title = "The database does not answer"


def open_database(url: str) -> Engine:
    """An engine for the URL. SQLite gets WAL, foreign keys and write locks taken at BEGIN, so
    that a transaction which reads and then writes cannot fail half-way.
    """
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": _SQLITE_BUSY_SECONDS})

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
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


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
    except (OperationalError, DBAPIError) as error:
        raise DatabaseUnavailable(
            f"the database answered: {type(error.orig).__name__}: {error.orig}", retry_after=1
        ) from error
