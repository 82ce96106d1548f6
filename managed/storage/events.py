"""The append-only event log: per job a gapless sequence in commit order, so that a reader who
resumes after number n misses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Row,
    and_,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from managed.domain.events import Event, NewEvent
from managed.storage.database import DatabaseUnavailable, reading, take_time, writing
from managed.storage.tables import events, jobs

_LOCK_SECONDS = 5
# From here on the preparations of a COPY are worth it.
_MANY = 20


def append(connection: Connection, job_id: str, new: Sequence[NewEvent]) -> None:
    """Number and store events inside the caller's transaction; the job's row is locked by it."""
    if not new:
        return
    row = connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(event_seq=jobs.c.event_seq + len(new))
        .returning(jobs.c.id, jobs.c.event_seq, jobs.c.server_id)
    ).one()
    store_numbered(connection, row, new)


def store_numbered(connection: Connection, row: Row[Any], new: Sequence[NewEvent]) -> None:
    """Store events for which the caller has raised the job's `event_seq` by their number, in this
    transaction; `row` is the job's row after it.
    """
    first = row.event_seq - len(new) + 1
    rows = [
        {
            "job_id": row.id,
            "seq": first + index,
            "at": event.at,
            "server_id": row.server_id,
            "type": event.type,
            "data": dict(event.data),
        }
        for index, event in enumerate(new)
    ]
    if connection.dialect.name == "postgresql" and len(rows) >= _MANY:
        _copy(connection, rows)
    elif rows:
        connection.execute(insert(events), rows)


def _copy(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """COPY takes a fraction of the time of as many inserts, here and in the database. Values pass
    through the columns' types as they do there.
    """
    columns = list(events.columns)
    prepared = [
        column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        for column in columns
    ]
    names = ", ".join(column.name for column in columns)
    driver = connection.connection.driver_connection
    if driver is None:
        raise DatabaseUnavailable("the connection to the database is lost", retry_after=1)
    try:
        with driver.cursor().copy(f"COPY {events.name} ({names}) FROM STDIN") as copy:
            for row in rows:
                values = (row[column.name] for column in columns)
                copy.write_row(
                    [
                        value if prepare is None else prepare(value)
                        for prepare, value in zip(prepared, values, strict=True)
                    ]
                )
    except driver.Error as error:
        raise DatabaseUnavailable(f"the database did not take events: {error}") from error


class EventLog:
    """Reading events. They are appended by whoever changes the job, in the same transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
                for row in connection.execute(query).all()
            ]

    def prepare_partitions(self, now: datetime, months: int = 3) -> None:
        """On PostgreSQL make the partitions of this month and the next ones; else nothing.

        A month whose first events are in the default partition already gets them moved. Each month
        is a transaction of its own; DatabaseUnavailable when others hold the tables for long.
        """
        if self._engine.dialect.name != "postgresql":
            return
        first = _month_of(now)
        for _ in range(months):
            with writing(self._engine) as connection:
                _make_partition(connection, first, _month_after(first))
            first = _month_after(first)


def make_empty_partitions(connection: Connection, since: datetime, until: datetime) -> None:
    """On PostgreSQL, one for each month from that of `since` to that of `until`, before there is
    any event: inside a transaction that nobody else waits for.
    """
    first = _month_of(since)
    while first <= until:
        after = _month_after(first)
        bounds = f"FROM ('{first:%Y-%m-%d}+00') TO ('{after:%Y-%m-%d}+00')"
        name = _partition_name(first)
        connection.execute(text(f"CREATE TABLE {name} PARTITION OF events FOR VALUES {bounds}"))
        first = after


def _month_of(moment: datetime) -> datetime:
    utc = moment.astimezone(UTC)
    return datetime(utc.year, utc.month, 1, tzinfo=UTC)


def _month_after(first: datetime) -> datetime:
    return datetime(first.year + first.month // 12, first.month % 12 + 1, 1, tzinfo=UTC)


def _partition_name(first: datetime) -> str:
    return f"events_{first:%Y_%m}"


def _make_partition(connection: Connection, first: datetime, after: datetime) -> None:
    """The partition for [first, after), with what the default partition holds of that time.

    Beside writers only the default partition is locked out of the way: a CREATE TABLE … PARTITION
    OF would lock all events. Who else makes partitions waits for us at the first lock.
    """
    name = _partition_name(first)
    take_time(connection)
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
    connection.execute(text("LOCK TABLE ONLY events IN SHARE UPDATE EXCLUSIVE MODE"))
    if connection.execute(select(func.to_regclass(name))).scalar_one() is not None:
        return
    connection.execute(text("LOCK TABLE events_default IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text(f"CREATE TABLE {name} (LIKE events INCLUDING ALL)"))
    default, month = (events.to_metadata(MetaData(), name=n) for n in ("events_default", name))
    of_month = and_(default.c.at >= first, default.c.at < after)
    names = [column.name for column in default.columns]
    connection.execute(insert(month).from_select(names, select(default).where(of_month)))
    connection.execute(delete(default).where(of_month))
    connection.execute(
        text(
            f"ALTER TABLE events ATTACH PARTITION {name} "
            f"FOR VALUES FROM ('{first:%Y-%m-%d}+00') TO ('{after:%Y-%m-%d}+00')"
        )
    )
