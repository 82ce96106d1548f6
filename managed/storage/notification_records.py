"""How far it has come to tell whom of what, for those who look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Select, or_, select, tuple_

from managed.domain.notifications import Incident, Notice, Occasion, Telling
from managed.storage.database import reading
from managed.storage.tables import (
    notification_deliveries,
    notification_targets,
    notifications,
    servers,
)

_deliveries = notification_deliveries.c


@dataclass(frozen=True)
class NotificationRecord:
    """How far it has come to tell one target of one incident. `delivery_id` is empty until it is
    in a message.
    """

    notice: Notice
    target_id: str
    status: Telling
    delivery_id: str
    attempts: int
    next_attempt_at: datetime | None
    ended_at: datetime | None
    last_error: str


class NotificationRecords:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(
        self,
        *,
        status: Telling | None = None,
        customer_id: str | None = None,
        before: NotificationRecord | None = None,
        limit: int = 50,
    ) -> Sequence[NotificationRecord]:
        """Newest first, all targets' or one customer's; `before` is the last of the page before."""
        query = _records().order_by(notifications.c.at.desc(), notifications.c.id.desc())
        if status is not None:
            query = query.where(_has_come_to(status))
        if customer_id is not None:
            query = query.where(notification_targets.c.customer_id == customer_id)
        if before is not None:
            last = (before.notice.incident.at, before.notice.notice_id)
            query = query.where(tuple_(notifications.c.at, notifications.c.id) < last)
        with reading(self._engine) as connection:
            return [_record(row) for row in connection.execute(query.limit(limit))]

    def get(self, notice_id: str) -> NotificationRecord | None:
        with reading(self._engine) as connection:
            query = _records().where(notifications.c.id == notice_id)
            row = connection.execute(query).one_or_none()
        return _record(row) if row else None


def notice_from_row(row: Row[Any]) -> Notice:
    incident = Incident(Occasion(row.occasion), row.server_id, row.subject_id, row.at, row.facts)
    return Notice(row.id, incident, row.server_name)


def _has_come_to(status: Telling) -> ColumnElement[bool]:
    if status is Telling.WAITING:
        return or_(_deliveries.state.is_(None), _deliveries.state == status.value)
    return _deliveries.state == status.value


def _records() -> Select[Any]:
    return (
        select(
            notifications,
            servers.c.name.label("server_name"),
            _deliveries.state,
            _deliveries.attempts,
            _deliveries.next_attempt_at,
            _deliveries.ended_at,
            _deliveries.last_error,
        )
        .join(servers, servers.c.id == notifications.c.server_id)
        .join(notification_targets, notification_targets.c.id == notifications.c.target_id)
        .outerjoin(notification_deliveries, _deliveries.id == notifications.c.delivery_id)
    )


def _record(row: Row[Any]) -> NotificationRecord:
    return NotificationRecord(
        notice=notice_from_row(row),
        target_id=row.target_id,
        status=Telling(row.state or Telling.WAITING),
        delivery_id=row.delivery_id or "",
        attempts=row.attempts or 0,
        next_attempt_at=row.next_attempt_at,
        ended_at=row.ended_at,
        last_error=row.last_error or "",
    )
