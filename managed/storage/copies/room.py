"""Making room for a restored control plane; whatever holds rows is set aside, never removed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select, table, text

from managed.domain.errors import Conflict
from managed.storage.database import reading

_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user
  AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def tables_with_rows(engine: Engine) -> tuple[str, ...]:
    """Names of tables that hold anything; the schema's own revision does not count."""
    with reading(engine) as connection:
        return _with_rows(connection, _tables(connection))


def copy_aside(engine: Engine, now: datetime) -> str:
    """On SQLite, a copy of the whole database beside it, for nobody else to read: its path."""
    path = Path(f"{engine.url.database}.before-restore-{now:%Y%m%dT%H%M%SZ}")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    source = engine.raw_connection()
    target = sqlite3.connect(path)
    try:
        source.driver_connection.backup(target)  # type: ignore[union-attr]
    finally:
        target.close()
        source.close()
    return str(path)


def make_room(connection: Connection, now: datetime, *, replace: bool) -> str:
    """Leave no table in the way, inside the caller's transaction. On PostgreSQL tables with rows
    move to a schema of their own, whose name is returned. Conflict when there are rows and they
    are not to be replaced, or when the service is at work.
    """
    _refuse_others(connection)
    present = _tables(connection)
    filled = _with_rows(connection, present)
    if filled and not replace:
        raise Conflict(
            f"the database is not empty: there are rows in {', '.join(filled)}",
            hint="Name an empty database, or give --replace: what is there is set aside then.",
        )
    if connection.dialect.name == "postgresql":
        return _move_aside(connection, present, now) if filled else _drop(connection, present)
    _drop_in_sqlite(connection)
    return ""


def _tables(connection: Connection) -> Sequence[str]:
    return inspect(connection).get_table_names()


def _with_rows(connection: Connection, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        name
        for name in sorted(names)
        if name != "alembic_version"
        and connection.execute(select(text("1")).select_from(table(name)).limit(1)).first()
    )


def _refuse_others(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    others = connection.execute(text(_OTHERS)).scalar_one()
    if others:
        raise Conflict(
            f"{others} other connections use this database",
            hint="Stop API, workers and clock, wherever they run, and try again.",
        )


def _move_aside(connection: Connection, names: Sequence[str], now: datetime) -> str:
    schema = f"before_restore_{now:%Y%m%dt%H%M%Sz}"
    quote = connection.dialect.identifier_preparer.quote
    connection.execute(text(f"CREATE SCHEMA {schema}"))
    for name in names:
        connection.execute(text(f"ALTER TABLE {quote(name)} SET SCHEMA {schema}"))
    return schema


def _drop(connection: Connection, names: Sequence[str]) -> str:
    quote = connection.dialect.identifier_preparer.quote
    if names:
        connection.execute(text(f"DROP TABLE {', '.join(map(quote, names))}"))
    return ""


def _drop_in_sqlite(connection: Connection) -> None:
    """One by one, none before those that refer to it."""
    quote = connection.dialect.identifier_preparer.quote
    for name, _ in reversed(inspect(connection).get_sorted_table_and_fkc_names()):
        if name is not None:
            connection.execute(text(f"DROP TABLE {quote(name)}"))
