"""The audit log: an entry is made in the transaction of the deed, neither is without the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from managed.domain.audit import FIRST_HASH, AuditEntry, Deed, chained
from managed.storage.database import reading
from managed.storage.tables import audit_head, audit_log


def record(connection: Connection, deed: Deed) -> AuditEntry:
    """Append inside the caller's transaction. Locks the log until the commit: come last."""
    number, previous = _locked_head(connection)
    entry = chained(number + 1, deed, previous)
    connection.execute(
        insert(audit_log).values(
            number=entry.number,
            at=deed.at,
            actor=deed.actor,
            action=deed.action,
            subject=deed.subject,
            reason=deed.reason,
            data=dict(deed.data),
            previous_hash=entry.previous_hash,
            hash=entry.hash,
        )
    )
    connection.execute(update(audit_head).values(number=entry.number, hash=entry.hash))
    return entry


def _locked_head(connection: Connection) -> tuple[int, str]:
    query = select(audit_head).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        # Whoever comes second to the very first entry waits here for the first one's commit.
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(audit_head).values(id=1, number=0, hash=FIRST_HASH))
        row = connection.execute(query).one()
    return row.number, row.hash


class AuditLog:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def head(self) -> tuple[int, str]:
        """Number and hash of the last entry."""
        with reading(self._engine) as connection:
            row = connection.execute(select(audit_head)).one_or_none()
        return (row.number, row.hash) if row else (0, FIRST_HASH)

    def after(self, number: int, limit: int = 50) -> Sequence[AuditEntry]:
        """Those with a higher number, oldest first."""
        query = (
            select(audit_log)
            .where(audit_log.c.number > number)
            .order_by(audit_log.c.number)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query)]

    def find(
        self, *, subject: str | None = None, before: int | None = None, limit: int = 50
    ) -> Sequence[AuditEntry]:
        """Newest first; `before` is the number of the last one of the page before."""
        query = select(audit_log).order_by(audit_log.c.number.desc()).limit(limit)
        if subject is not None:
            query = query.where(audit_log.c.subject == subject)
        if before is not None:
            query = query.where(audit_log.c.number < before)
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query)]


def _entry(row: Row[Any]) -> AuditEntry:
    deed = Deed(row.at, row.actor, row.action, row.subject, row.reason, row.data)
    return AuditEntry(row.number, deed, row.previous_hash, row.hash)
