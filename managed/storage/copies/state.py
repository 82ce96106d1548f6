"""How the control plane's own backup fares, on record."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from managed.domain.copies import SelfBackupState
from managed.storage.database import reading, writing
from managed.storage.tables import self_backup


class SelfBackupRecord:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def state(self) -> SelfBackupState:
        with reading(self._engine) as connection:
            return state_within(connection)

    def note_good(self, name: str, taken_at: datetime, now: datetime) -> None:
        with writing(self._engine) as connection:
            note_good_within(connection, name, taken_at, now)

    def note_failure(self, error: str, now: datetime) -> None:
        with writing(self._engine) as connection:
            _keep(connection, last_error=error, last_try_at=now)


def state_within(connection: Connection) -> SelfBackupState:
    row = connection.execute(select(self_backup)).one_or_none()
    if row is None:
        return SelfBackupState()
    return SelfBackupState(row.last_good, row.last_good_at, row.last_try_at, row.last_error)


def note_good_within(connection: Connection, name: str, taken_at: datetime, now: datetime) -> None:
    """The same inside the caller's transaction."""
    _keep(connection, last_good=name, last_good_at=taken_at, last_try_at=now, last_error="")


def _keep(connection: Connection, **values: Any) -> None:
    if connection.execute(update(self_backup).values(values)).rowcount == 0:
        connection.execute(insert(self_backup).values(id=1, **values))
