"""Numbers for those who watch over the service: how much is open, how old, how far behind.

They are asked for again and again beside millions of ended jobs, so every query stays on an index
of what is open or recent. The conditions of the partial indexes are written out: with parameters
in their place PostgreSQL would not know that the index holds all that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Select, and_, case, func, select, text

from managed.domain.copies import SelfBackupState
from managed.domain.customers import PlanKind
from managed.domain.surveys import SurveyOutcome
from managed.domain.windows import can_be_followed
from managed.storage.beginning import may_begin
from managed.storage.copies.state import state_within
from managed.storage.covers import IS_UNDER_MANAGEMENT
from managed.storage.database import reading
from managed.storage.surveys import counts_within
from managed.storage.tables import jobs, missed_windows, pause, plans, servers, snapshots
from managed.storage.windows import windows_within

BACKUP_IS_LATE: Final = timedelta(hours=26)
"""A nightly backup that begins anywhere in its window and takes an hour or two."""
MISSED_WITHIN: Final = timedelta(hours=24)
SURVEYED_WITHIN: Final = timedelta(hours=24)

_OPEN: Final = text("status IN ('queued','running','waiting')")


@dataclass(frozen=True)
class BackupNumbers:
    """Of the servers that we are to back up: `oldest` is the time of the newest verified backup of
    the server that is worst off, among those that have one.
    """

    servers: int
    never: int
    late: int
    oldest: datetime | None


@dataclass(frozen=True)
class Numbers:
    """`open_jobs` by status and kind. `oldest_unbegun` is when the job was asked for that waits
    longest for a worker; `abandoned` are those whose worker is gone, and `overdue_questions` those
    that the poller should have woken. `unreadable_windows` have a rule that cannot be followed.
    """

    open_jobs: Mapping[tuple[str, str], int]
    oldest_unbegun: datetime | None
    abandoned: int
    overdue_questions: int
    missed_windows: Mapping[str, int]
    unreadable_windows: int
    surveys: Mapping[SurveyOutcome, int]
    backups: BackupNumbers
    self_backup: SelfBackupState
    paused_since: datetime | None


def read_numbers(engine: Engine, now: datetime) -> Numbers:
    """In one transaction that only reads. DatabaseUnavailable."""
    with reading(engine) as connection:
        queue = connection.execute(_queue(now)).one()
        return Numbers(
            open_jobs={
                (row.status, row.kind): row.number for row in connection.execute(_open_jobs())
            },
            oldest_unbegun=queue.oldest,
            abandoned=queue.abandoned,
            overdue_questions=queue.overdue,
            missed_windows={row.job_kind: row.number for row in connection.execute(_missed(now))},
            unreadable_windows=sum(
                not can_be_followed(window) for window in windows_within(connection)
            ),
            surveys=counts_within(connection, now - SURVEYED_WITHIN),
            backups=_backups(connection, now),
            self_backup=state_within(connection),
            paused_since=connection.execute(select(pause.c.since)).scalar_one_or_none(),
        )


def _open_jobs() -> Select[Any]:
    return (
        select(jobs.c.status, jobs.c.kind, func.count().label("number"))
        .where(_OPEN)
        .group_by(jobs.c.status, jobs.c.kind)
    )


def _queue(now: datetime) -> Select[Any, Any, Any]:
    """A job that has begun and is queued again is left out of the age: when it was is not kept. One
    that waits for its server, for its time or for the end of a pause does not wait for a worker.
    """
    unbegun = and_(
        jobs.c.status == "queued",
        jobs.c.holds_server,
        jobs.c.started_at.is_(None),
        jobs.c.next_attempt_at.is_(None),
        may_begin(now),
    )
    abandoned = and_(jobs.c.status == "running", jobs.c.lease_expires_at <= now)
    overdue = and_(jobs.c.status == "waiting", jobs.c.question_until <= now)
    return select(
        func.min(case((unbegun, jobs.c.created_at))).label("oldest"),
        func.count(case((abandoned, 1))).label("abandoned"),
        func.count(case((overdue, 1))).label("overdue"),
    ).where(_OPEN)


def _missed(now: datetime) -> Select[Any]:
    return (
        select(missed_windows.c.job_kind, func.count().label("number"))
        .where(missed_windows.c.recorded_at > now - MISSED_WITHIN)
        .group_by(missed_windows.c.job_kind)
    )


def _backups(connection: Connection, now: datetime) -> BackupNumbers:
    """One look at the index of its snapshots for each server on a managed plan."""
    newest = (
        select(snapshots.c.time)
        .where(
            snapshots.c.server_id == servers.c.id,
            snapshots.c.verified_at.is_not(None),
            # What was taken of some paths before a restore is no backup of the server.
            snapshots.c.paths.is_(None),
        )
        .order_by(snapshots.c.time.desc())
        .limit(1)
        .scalar_subquery()
    )
    covered = (
        select(servers.c.created_at, newest.label("newest"))
        .join(plans, plans.c.id == servers.c.plan_id)
        .where(plans.c.kind == PlanKind.MANAGED.value, IS_UNDER_MANAGEMENT)
        .subquery()
    )
    is_late = func.coalesce(covered.c.newest, covered.c.created_at) < now - BACKUP_IS_LATE
    row = connection.execute(
        select(
            func.count().label("servers"),
            func.count(covered.c.newest).label("backed_up"),
            func.count(case((is_late, 1))).label("late"),
            func.min(covered.c.newest).label("oldest"),
        ).select_from(covered)
    ).one()
    return BackupNumbers(row.servers, row.servers - row.backed_up, row.late, row.oldest)
