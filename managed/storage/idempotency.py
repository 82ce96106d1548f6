"""Answers to requests that carried an Idempotency-Key, kept with the work in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from managed.domain.errors import Conflict, Json, KeyReused
from managed.storage.tables import idempotency_keys


def kept_answer(connection: Connection, key: str, request_digest: str) -> Mapping[str, Json] | None:
    """The answer that this key got before; KeyReused when it came with another request."""
    query = select(idempotency_keys).where(idempotency_keys.c.key == key)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.request_digest != request_digest:
        raise KeyReused(
            "this Idempotency-Key came with another request before",
            hint="Use a new key for a new request.",
        )
    answer: Mapping[str, Json] = row.response
    return answer


def keep_answer(
    connection: Connection,
    key: str,
    request_digest: str,
    answer: Mapping[str, Json],
    now: datetime,
) -> None:
    try:
        with connection.begin_nested():
            connection.execute(
                insert(idempotency_keys).values(
                    key=key, request_digest=request_digest, response=dict(answer), created_at=now
                )
            )
    except IntegrityError as error:
        raise Conflict(
            "a request with this Idempotency-Key is being carried out",
            hint="Ask again in a moment; you will get its answer.",
        ) from error


def forget_answers(connection: Connection, before: datetime) -> int:
    """Drop keys older than `before`; returns how many."""
    query = delete(idempotency_keys).where(idempotency_keys.c.created_at < before)
    return connection.execute(query).rowcount
