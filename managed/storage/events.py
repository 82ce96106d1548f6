"""The append-only event log: per job a gapless sequence in commit order, so that a reader who
resumes after number n misses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, insert, select, text, update

from managed.domain.events import Event, NewEvent
from managed.storage.database import reading, writing
from managed.storage.tables import events, jobs


def append(connection: Connection, job_id: str, new: Sequence[NewEvent]) -> None:
    """Number and store events inside the caller's transaction; the job's row is locked by it."""
    if not new:
        return
    row = connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(event_seq=jobs.c.event_seq + len(new))
        .returning(jobs.c.event_seq, jobs.c.server_id)
    ).one()
    first = row.event_seq - len(new) + 1
    connection.execute(
        insert(events),
        [
            {
                "job_id": job_id,
                "seq": first + index,
                "at": event.at,
                "server_id": row.server_id,
                "type": event.type,
                "data": dict(event.data),
            }
            for index, event in enumerate(new)
        ],
    )


class EventLog:
    """Reading events, and appending those that belong to no lease (the API's, the poller's)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def append(self, job_id: str, new: Sequence[NewEvent]) -> None:
        with writing(self._engine) as connection:
            append(connection, job_id, new)

    def after(self, job_id: str, seq: int, limit: int = 500) -> Sequence[Event]:
        """Events of the job with a number above `seq`, in order, at most `limit`."""
        query = (
            select(events)
            .where(events.c.job_id == job_id, events.c.seq > seq)
            .order_by(events.c.seq)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [
                Event(row.job_id, row.seq, row.at, row.server_id, row.type, row.data)
                for row in connection.execute(query)
            ]

    def prepare_partitions(self, now: datetime, months: int = 3) -> None:
        """On PostgreSQL make the partitions of this month and the next ones; else nothing."""
        if self._engine.dialect.name != "postgresql":
            return
        month = datetime(now.year, now.month, 1, tzinfo=UTC)
        with writing(self._engine) as connection:
            for _ in range(months):
                after = datetime(
                    month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC
                )
                connection.execute(
                    text(
                        f"CREATE TABLE IF NOT EXISTS events_{month:%Y_%m} PARTITION OF events "
                        f"FOR VALUES FROM ('{month:%Y-%m-%d}+00') TO ('{after:%Y-%m-%d}+00')"
                    )
                )
                month = after
