"""Who is told of what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select

from managed.domain.errors import AlreadyExists, Conflict, NotFound
from managed.domain.notifications import MOST_TARGETS, Occasion, Target, TargetKind
from managed.storage.database import Turn, reading, wait_for_turn
from managed.storage.tables import notification_targets


class NotificationTargets:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, connection: Connection, target: Target) -> None:
        """Insert inside the caller's transaction; it is told of what happens from then on.
        AlreadyExists when this address has been added for the same customer, or for the staff;
        Conflict when that one has as many as there may be.
        """
        wait_for_turn(connection, Turn.NOTIFICATION_TARGET)
        present = _of_owner(connection, target.customer_id)
        for one in present:
            if (one.kind, one.address) == (target.kind, target.address):
                raise AlreadyExists(
                    "this address is a notification target already",
                    hint="Remove that one first to change its occasions, or to get a new secret.",
                    target_id=one.target_id,
                )
        if len(present) >= MOST_TARGETS:
            raise Conflict(
                f"there are {MOST_TARGETS} notification targets already, and no more may be",
                hint="Remove one first, or let a webhook pass on what it is told.",
            )
        connection.execute(
            insert(notification_targets).values(
                id=target.target_id,
                kind=target.kind.value,
                address=target.address,
                occasions=sorted(target.occasions),
                customer_id=target.customer_id,
                created_at=target.created_at,
            )
        )

    def get(self, target_id: str) -> Target:
        query = select(notification_targets).where(notification_targets.c.id == target_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(
                f"there is no notification target {target_id}",
                hint="GET /v1/notification-targets lists them.",
                target_id=target_id,
            )
        return target_from_row(row)

    def find(
        self,
        *,
        customer_id: str | None = None,
        after: Target | None = None,
        limit: int = 50,
    ) -> Sequence[Target]:
        """By id, those after `after`; all of them, or one customer's."""
        query = select(notification_targets).order_by(notification_targets.c.id).limit(limit)
        if customer_id is not None:
            query = query.where(notification_targets.c.customer_id == customer_id)
        if after is not None:
            query = query.where(notification_targets.c.id > after.target_id)
        with reading(self._engine) as connection:
            return [target_from_row(row) for row in connection.execute(query)]

    def remove(self, connection: Connection, target_id: str) -> None:
        """With what it has been told, and what it would have been. None is fine."""
        connection.execute(
            delete(notification_targets).where(notification_targets.c.id == target_id)
        )


def _of_owner(connection: Connection, customer_id: str | None) -> Sequence[Target]:
    owner = notification_targets.c.customer_id
    query = select(notification_targets).where(owner.is_not_distinct_from(customer_id))
    return [target_from_row(row) for row in connection.execute(query)]


def target_from_row(row: Row[Any]) -> Target:
    return Target(
        target_id=row.id,
        kind=TargetKind(row.kind),
        address=row.address,
        occasions=frozenset(Occasion(name) for name in row.occasions),
        customer_id=row.customer_id,
        created_at=row.created_at,
    )
