"""Maintenance windows, what they have started, what was missed, and the pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    Table,
    delete,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from managed.domain.coverage import WindowPeriod
from managed.domain.errors import AlreadyExists, Conflict, NotFound
from managed.domain.jobs import JobKind
from managed.domain.notifications import missed_window
from managed.domain.windows import Opening, Window, WindowOwner
from managed.storage.database import inserting, reading, writing
from managed.storage.incidents import note
from managed.storage.tables import jobs, missed_windows, past_windows, pause, servers, windows
from managed.storage.tables.columns import UtcDateTime

RESTORER = "restore-self"
"""Who begins the pause of a control plane that was restored."""

_RECORDED_AT_ONCE: Final = 1000


@dataclass(frozen=True)
class Pause:
    """Nothing that the clock would start is started while there is one."""

    reason: str
    by: str
    since: datetime

    def follows_a_restore_after(self, moment: datetime) -> bool:
        """Was the control plane restored after that moment? Then its record of it may be lost."""
        return self.by == RESTORER and moment <= self.since


@dataclass(frozen=True)
class MissedWindow:
    """A window that came to its end and had started nothing on this server."""

    server_id: str
    job_kind: JobKind
    opening: Opening
    reason: str
    recorded_at: datetime


class Windows:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- windows

    def add(self, connection: Connection, window: Window) -> None:
        """Insert inside the caller's transaction. AlreadyExists when its owner has one for this
        kind, NotFound when there is no such owner.
        """
        if _of_owner(connection, window) is not None:
            raise _has_one(window)
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(windows).values(
                        id=window.window_id,
                        job_kind=window.job_kind.value,
                        rule=window.rule,
                        zone=window.zone,
                        minutes=window.minutes,
                        starts_on=window.starts_on.isoformat(),
                        created_at=window.created_at,
                        **{f"{window.owner}_id": window.owner_id},
                    )
                )
        except IntegrityError as error:
            if _of_owner(connection, window) is not None:
                raise _has_one(window) from error
            raise NotFound(f"there is no {window.owner} {window.owner_id}") from error

    def locked(self, connection: Connection, window_id: str) -> Window:
        """As it is now; nobody else changes it until the caller's transaction ends. NotFound."""
        query = select(windows).where(windows.c.id == window_id).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"there is no window {window_id}", window_id=window_id)
        return _window(row, row.id)

    def change(self, connection: Connection, window: Window) -> None:
        """From its `created_at` on it is as given. NotFound when it has gone meanwhile."""
        _keep_as_it_was(connection, window.window_id, window.created_at)
        changed = connection.execute(
            update(windows)
            .where(windows.c.id == window.window_id)
            .values(
                rule=window.rule,
                zone=window.zone,
                minutes=window.minutes,
                starts_on=window.starts_on.isoformat(),
                created_at=window.created_at,
            )
        ).rowcount
        if changed == 0:
            raise NotFound(f"there is no window {window.window_id}", window_id=window.window_id)

    def remove(self, connection: Connection, window_id: str, now: datetime) -> None:
        """NotFound when there is no such window. What it has started goes on."""
        _keep_as_it_was(connection, window_id, now)
        if connection.execute(delete(windows).where(windows.c.id == window_id)).rowcount == 0:
            raise NotFound(f"there is no window {window_id}", window_id=window_id)

    def get(self, window_id: str) -> Window:
        with reading(self._engine) as connection:
            row = connection.execute(select(windows).where(windows.c.id == window_id)).one_or_none()
        if row is None:
            raise NotFound(f"there is no window {window_id}", window_id=window_id)
        return _window(row, row.id)

    def all(self, customer_id: str | None = None) -> Sequence[Window]:
        """Every window, oldest first; for a customer those of theirs, their servers and the plans
        of these. There are few: most servers go by their plan's.
        """
        with reading(self._engine) as connection:
            return windows_within(connection, customer_id)

    def periods(self, after: datetime) -> Sequence[WindowPeriod]:
        """Windows as they are, and as they were until a time after that one. The present ones are
        read first: one that is changed meanwhile is seen twice as it was, and never as nothing.
        """
        past = select(past_windows).where(past_windows.c.until > after)
        with reading(self._engine) as connection:
            found = [
                WindowPeriod(_window(row, row.id), None)
                for row in connection.execute(select(windows))
            ]
            for row in connection.execute(past):
                found.append(WindowPeriod(_window(row, row.window_id), row.until))
        return found

    def forget_past(self, before: datetime) -> None:
        """How windows were until that time or earlier."""
        with writing(self._engine) as connection:
            connection.execute(delete(past_windows).where(past_windows.c.until <= before))

    # -- what became of their openings

    def started(self, kind: JobKind, run_key: str) -> set[str]:
        """The servers that have a job of this opening."""
        query = select(jobs.c.server_id).where(jobs.c.kind == kind.value, jobs.c.run_key == run_key)
        with reading(self._engine) as connection:
            return {row.server_id for row in connection.execute(query)}

    def known_as_missed(self, kind: JobKind, opening: Opening) -> set[str]:
        """The servers for which this opening is recorded as missed."""
        query = select(missed_windows.c.server_id).where(
            missed_windows.c.job_kind == kind.value,
            missed_windows.c.starts_at == opening.starts_at,
        )
        with reading(self._engine) as connection:
            return {row.server_id for row in connection.execute(query)}

    def record_missed(self, missed: Sequence[MissedWindow]) -> Sequence[MissedWindow]:
        """Those that are not recorded yet, and they are returned; whoever wants to hear of them
        will be told. So many at a time that nobody else waits long.
        """
        recorded: list[MissedWindow] = []
        for begin in range(0, len(missed), _RECORDED_AT_ONCE):
            with writing(self._engine) as connection:
                part = missed[begin : begin + _RECORDED_AT_ONCE]
                recorded += record_missed_within(connection, part)
        return recorded

    def missed(
        self,
        *,
        since: datetime,
        server_id: str | None = None,
        customer_id: str | None = None,
        kind: JobKind | None = None,
        ended_after: datetime | None = None,
        before: tuple[datetime, str, str] | None = None,
        limit: int = 50,
    ) -> Sequence[MissedWindow]:
        """Those recorded at `since` or later, newest opening first; of openings that ended after
        that time only, if it is given; `before` is start, server and kind of the last one of the
        page before.
        """
        query = select(missed_windows).where(missed_windows.c.recorded_at >= since)
        if kind is not None:
            query = query.where(missed_windows.c.job_kind == kind.value)
        if ended_after is not None:
            query = query.where(missed_windows.c.ends_at > ended_after)
        query = page_of_openings(query, missed_windows, server_id, customer_id, before, limit)
        with reading(self._engine) as connection:
            return [_missed(row) for row in connection.execute(query)]

    # -- the pause

    def pause(self) -> Pause | None:
        with reading(self._engine) as connection:
            return pause_within(connection)

    def begin_pause(self, connection: Connection, reason: str, by: str, now: datetime) -> Pause:
        """From the commit on nothing is started by the clock. Conflict when there is a pause."""
        present = pause_within(connection)
        if present is not None:
            raise Conflict(f"there is a pause since {present.since:%F %T} UTC by {present.by}")
        try:
            with connection.begin_nested():
                connection.execute(insert(pause).values(id=1, reason=reason, by=by, since=now))
        except IntegrityError as error:
            raise Conflict("somebody else has begun a pause at this moment") from error
        return Pause(reason, by, now)

    def end_pause(self, connection: Connection) -> None:
        """None is fine."""
        connection.execute(delete(pause))


def windows_within(connection: Connection, customer_id: str | None = None) -> Sequence[Window]:
    """`Windows.all`, within the caller's transaction."""
    query = select(windows).order_by(windows.c.created_at, windows.c.id)
    if customer_id is not None:
        of_customer = servers.c.customer_id == customer_id
        query = query.where(
            or_(
                windows.c.customer_id == customer_id,
                windows.c.server_id.in_(select(servers.c.id).where(of_customer)),
                windows.c.plan_id.in_(select(servers.c.plan_id).where(of_customer)),
            )
        )
    return [_window(row, row.id) for row in connection.execute(query)]


def record_missed_within(
    connection: Connection, missed: Sequence[MissedWindow]
) -> Sequence[MissedWindow]:
    """`Windows.record_missed`, within the caller's transaction."""
    statement = (
        inserting(connection, missed_windows)
        .on_conflict_do_nothing()
        .returning(
            missed_windows.c.server_id, missed_windows.c.job_kind, missed_windows.c.starts_at
        )
    )
    values = [
        {
            "server_id": one.server_id,
            "job_kind": one.job_kind.value,
            "starts_at": one.opening.starts_at,
            "ends_at": one.opening.ends_at,
            "reason": one.reason,
            "recorded_at": one.recorded_at,
        }
        for one in missed
    ]
    new = {tuple(row) for row in connection.execute(statement, values)}
    recorded = [
        one for one in missed if (one.server_id, one.job_kind.value, one.opening.starts_at) in new
    ]
    note(
        connection,
        (
            missed_window(one.server_id, one.job_kind, one.opening, one.reason, one.recorded_at)
            for one in recorded
        ),
    )
    return recorded


def page_of_openings(
    query: Select[Any],
    table: Table,
    server_id: str | None,
    customer_id: str | None,
    before: tuple[datetime, str, str] | None,
    limit: int,
) -> Select[Any]:
    """Of a table that is kept by opening, server and kind: a page, newest opening first, of one
    server or of one customer's if that is given. `before` is start, server and kind of the last one
    of the page before.
    """
    key = (table.c.starts_at, table.c.server_id, table.c.job_kind)
    if server_id is not None:
        query = query.where(table.c.server_id == server_id)
    if customer_id is not None:
        own = select(servers.c.id).where(servers.c.customer_id == customer_id)
        query = query.where(table.c.server_id.in_(own))
    if before is not None:
        query = query.where(tuple_(*key) < before)
    return query.order_by(*(column.desc() for column in key)).limit(limit)


def pause_within(connection: Connection) -> Pause | None:
    row = connection.execute(select(pause)).one_or_none()
    return Pause(row.reason, row.by, row.since) if row else None


def _has_one(window: Window) -> AlreadyExists:
    return AlreadyExists(
        f"this {window.owner} has a window for {window.job_kind} already",
        hint="Change that one, or remove it first.",
    )


def _of_owner(connection: Connection, window: Window) -> str | None:
    owner = windows.c[f"{window.owner}_id"]
    query = select(windows.c.id).where(
        owner == window.owner_id, windows.c.job_kind == window.job_kind.value
    )
    return connection.execute(query).scalar_one_or_none()


def _keep_as_it_was(connection: Connection, window_id: str, until: datetime) -> None:
    """For openings that have closed by then and are not judged yet."""
    kept = [column for column in past_windows.c if column.name not in ("window_id", "until")]
    present = select(
        windows.c.id, literal(until, UtcDateTime), *(windows.c[column.name] for column in kept)
    ).where(windows.c.id == window_id, windows.c.created_at < until)
    names = ["window_id", "until", *(column.name for column in kept)]
    connection.execute(
        inserting(connection, past_windows).from_select(names, present).on_conflict_do_nothing()
    )


def _window(row: Row[Any], window_id: str) -> Window:
    owner = next(o for o in WindowOwner if row._mapping[f"{o}_id"] is not None)
    return Window(
        window_id=window_id,
        owner=owner,
        owner_id=row._mapping[f"{owner}_id"],
        job_kind=JobKind(row.job_kind),
        rule=row.rule,
        zone=row.zone,
        minutes=row.minutes,
        starts_on=date.fromisoformat(row.starts_on),
        created_at=row.created_at,
    )


def _missed(row: Row[Any]) -> MissedWindow:
    return MissedWindow(
        server_id=row.server_id,
        job_kind=JobKind(row.job_kind),
        opening=Opening(row.starts_at, row.ends_at),
        reason=row.reason,
        recorded_at=row.recorded_at,
    )
