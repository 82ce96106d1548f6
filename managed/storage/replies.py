"""The outbox: answers to tickets, stored with what they tell, sent by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from managed.domain.replies import Reply
from managed.storage.database import reading, writing
from managed.storage.tables import replies


@dataclass(frozen=True)
class StoredReply:
    """`attempts` counts the tries that were begun; without `due_at` there will be no other, either
    because it was sent or because `error` says why it can't be.
    """

    reply: Reply
    due_at: datetime | None
    attempts: int
    sent_at: datetime | None
    error: str


class Replies:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of_request(self, request_id: str) -> StoredReply | None:
        with reading(self._engine) as connection:
            return reply_of(connection, request_id)

    def due(self, now: datetime, limit: int) -> Sequence[StoredReply]:
        """Those to be sent now, the longest due first."""
        query = select(replies).where(replies.c.due_at <= now).order_by(replies.c.due_at)
        with reading(self._engine) as connection:
            return [_stored(row) for row in connection.execute(query.limit(limit))]

    def begin(self, stored: StoredReply, until: datetime) -> bool:
        """Count a try before it is made; until then nobody else makes one. False when another has
        begun one.
        """
        with writing(self._engine) as connection:
            begun = connection.execute(
                update(replies)
                .where(
                    replies.c.request_id == stored.reply.reference,
                    replies.c.attempts == stored.attempts,
                    replies.c.due_at.is_not(None),
                )
                .values(attempts=stored.attempts + 1, due_at=until)
            )
        return begun.rowcount == 1

    def sent(self, reply: Reply, article_id: str, now: datetime) -> None:
        self._note(reply, due_at=None, sent_at=now, article_id=article_id, error="")

    def put_off(self, reply: Reply, error: str, until: datetime) -> None:
        self._note(reply, due_at=until, error=error)

    def give_up(self, reply: Reply, error: str) -> None:
        self._note(reply, due_at=None, error=error)

    def _note(self, reply: Reply, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(replies).where(replies.c.request_id == reply.reference).values(**values)
            )


def reply_of(connection: Connection, request_id: str) -> StoredReply | None:
    query = select(replies).where(replies.c.request_id == request_id)
    row = connection.execute(query).one_or_none()
    return _stored(row) if row else None


def put_into_outbox(connection: Connection, reply: Reply, now: datetime) -> None:
    """Store an answer inside the caller's transaction: with what it tells, or not at all."""
    connection.execute(
        insert(replies).values(
            request_id=reply.reference,
            ticket_id=reply.ticket_id,
            recipient=reply.to,
            subject=reply.subject,
            text=reply.text,
            created_at=now,
            due_at=now,
        )
    )


def _stored(row: Row[Any]) -> StoredReply:
    reply = Reply(row.request_id, row.ticket_id, row.recipient, row.subject, row.text)
    return StoredReply(reply, row.due_at, row.attempts, row.sent_at, row.error)
