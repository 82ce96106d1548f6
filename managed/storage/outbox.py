"""What has yet to be told, and what has been: from notifications to deliveries.

A delivery is one message to one target. It is put together once, so that every try of it says the
same under the same id, and a target has at most one on its way.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    delete,
    exists,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from managed.domain.notifications import (
    LARGEST_DIGEST,
    QUIET_AFTER_A_MESSAGE,
    Delivery,
    Incident,
    Notice,
    Occasion,
    TargetKind,
    Telling,
)
from managed.storage.database import reading, writing
from managed.storage.notification_targets import target_from_row
from managed.storage.tables import (
    notification_deliveries,
    notification_targets,
    notifications,
    servers,
)

_deliveries = notification_deliveries.c
_waiting = _deliveries.state == Telling.WAITING.value


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


class Outbox:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- telling

    def gather(self, now: datetime, limit: int = 100) -> None:
        """Put what has not been told into a delivery for each target that has none on its way and
        has had no message in the last minutes; so many targets at once that nobody waits long.
        """
        query = (
            select(notifications.c.target_id)
            .distinct()
            .join(notification_targets, notification_targets.c.id == notifications.c.target_id)
            .where(notifications.c.delivery_id.is_(None), _may_be_told(now))
            .limit(limit)
        )
        with reading(self._engine) as connection:
            target_ids = connection.execute(query).scalars().all()
        for target_id in target_ids:
            with writing(self._engine) as connection:
                _gather(connection, target_id, now)

    def due(self, kind: TargetKind, now: datetime, limit: int = 100) -> Sequence[str]:
        """Ids of deliveries that are to be tried now, the one that is due longest first."""
        query = (
            select(_deliveries.id)
            .join(notification_targets, notification_targets.c.id == _deliveries.target_id)
            .where(
                notification_targets.c.kind == kind.value,
                _waiting,
                _deliveries.next_attempt_at <= now,
            )
            .order_by(_deliveries.next_attempt_at)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return connection.execute(query).scalars().all()

    def take(self, delivery_id: str, now: datetime, patience: timedelta) -> Delivery | None:
        """Begin the next try of the delivery, or None when it is not due: of many who would take
        it one may. Who does not say within `patience` what came of it is believed to be lost.
        """
        with writing(self._engine) as connection:
            taken = connection.execute(
                update(notification_deliveries)
                .where(_deliveries.id == delivery_id, _waiting, _deliveries.next_attempt_at <= now)
                .values(attempts=_deliveries.attempts + 1, next_attempt_at=now + patience)
                .returning(_deliveries.target_id, _deliveries.attempts, _deliveries.created_at)
            ).one_or_none()
            if taken is None:
                return None
            target = connection.execute(
                select(notification_targets).where(notification_targets.c.id == taken.target_id)
            ).one()
        return Delivery(delivery_id, target_from_row(target), taken.attempts, taken.created_at)

    def notices(self, delivery: Delivery) -> Sequence[Notice]:
        """What the delivery tells of, in the order in which it happened."""
        query = (
            select(notifications, servers.c.name.label("server_name"))
            .join(servers, servers.c.id == notifications.c.server_id)
            .where(notifications.c.delivery_id == delivery.delivery_id)
            .order_by(notifications.c.at, notifications.c.id)
        )
        with reading(self._engine) as connection:
            return [_notice(row) for row in connection.execute(query)]

    def mark_sent(self, delivery: Delivery, now: datetime) -> None:
        """The other side has taken it. The target is left in peace for a while."""
        self._end(delivery, Telling.SENT, "", now)

    def mark_failed(
        self, delivery: Delivery, error: str, next_attempt_at: datetime | None, now: datetime
    ) -> None:
        """This try came to nothing; without a next one it is given up, and can be seen as that."""
        if next_attempt_at is None:
            self._end(delivery, Telling.GIVEN_UP, error, now)
            return
        with writing(self._engine) as connection:
            connection.execute(
                update(notification_deliveries)
                .where(_this_try(delivery))
                .values(next_attempt_at=next_attempt_at, last_error=error)
            )

    def forget(self, before: datetime) -> None:
        """Drop what was told, or given up, before that time."""
        old = and_(~_waiting, _deliveries.created_at < before)
        with writing(self._engine) as connection:
            connection.execute(delete(notification_deliveries).where(old))

    # -- looking

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

    def _end(self, delivery: Delivery, state: Telling, error: str, now: datetime) -> None:
        with writing(self._engine) as connection:
            _lock_target(connection, delivery.target.target_id)
            ended = connection.execute(
                update(notification_deliveries)
                .where(_this_try(delivery))
                .values(state=state.value, next_attempt_at=None, last_error=error, ended_at=now)
            ).rowcount
            if ended:
                connection.execute(
                    update(notification_targets)
                    .where(notification_targets.c.id == delivery.target.target_id)
                    .values(quiet_until=now + QUIET_AFTER_A_MESSAGE)
                )


def _gather(connection: Connection, target_id: str, now: datetime) -> None:
    _lock_target(connection, target_id)
    untold = (
        select(notifications.c.id)
        .join(notification_targets, notification_targets.c.id == notifications.c.target_id)
        .where(
            notifications.c.target_id == target_id,
            notifications.c.delivery_id.is_(None),
            _may_be_told(now),
        )
        .order_by(notifications.c.at, notifications.c.id)
        .limit(LARGEST_DIGEST)
    )
    notice_ids = connection.execute(untold).scalars().all()
    if not notice_ids:
        return
    delivery_id = str(uuid.uuid4())
    connection.execute(
        insert(notification_deliveries).values(
            id=delivery_id,
            target_id=target_id,
            state=Telling.WAITING.value,
            next_attempt_at=now,
            created_at=now,
        )
    )
    connection.execute(
        update(notifications)
        .where(notifications.c.id.in_(notice_ids))
        .values(delivery_id=delivery_id)
    )


def _lock_target(connection: Connection, target_id: str) -> None:
    """Always before its deliveries: of two clocks one puts them together, and nobody waits for one
    who waits for him.
    """
    connection.execute(
        select(notification_targets.c.id)
        .where(notification_targets.c.id == target_id)
        .with_for_update(key_share=True)
    )


def _may_be_told(now: datetime) -> ColumnElement[bool]:
    on_its_way = exists().where(_deliveries.target_id == notification_targets.c.id, _waiting)
    quiet_until = notification_targets.c.quiet_until
    return and_(or_(quiet_until.is_(None), quiet_until <= now), ~on_its_way)


def _this_try(delivery: Delivery) -> ColumnElement[bool]:
    """A try that was believed to be lost must not speak for the one after it."""
    return and_(
        _deliveries.id == delivery.delivery_id, _waiting, _deliveries.attempts == delivery.attempt
    )


def _has_come_to(status: Telling) -> ColumnElement[bool]:
    if status is Telling.WAITING:
        return or_(notifications.c.delivery_id.is_(None), _waiting)
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
        notice=_notice(row),
        target_id=row.target_id,
        status=Telling(row.state or Telling.WAITING),
        delivery_id=row.delivery_id or "",
        attempts=row.attempts or 0,
        next_attempt_at=row.next_attempt_at,
        ended_at=row.ended_at,
        last_error=row.last_error or "",
    )


def _notice(row: Row[Any]) -> Notice:
    incident = Incident(Occasion(row.occasion), row.server_id, row.subject_id, row.at, row.facts)
    return Notice(row.id, incident, row.server_name)
