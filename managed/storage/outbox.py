"""What has yet to be told, and what has been: from notifications to deliveries.

A delivery is one message to one target. It is put together once, so that every try of it says the
same under the same id, and a target has at most one on its way.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from managed.domain.notifications import (
    LARGEST_DIGEST,
    QUIET_AFTER_A_MESSAGE,
    Delivery,
    Notice,
    TargetKind,
    Telling,
)
from managed.storage.database import reading, writing
from managed.storage.notification_records import notice_from_row
from managed.storage.notification_targets import target_from_row
from managed.storage.tables import (
    notification_deliveries,
    notification_targets,
    notifications,
    servers,
)

_deliveries = notification_deliveries.c
_waiting = _deliveries.state == Telling.WAITING.value


class Outbox:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
            return [notice_from_row(row) for row in connection.execute(query)]

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
