"""Submitting, reading, cancelling and finding jobs: everything that needs no lease."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    insert,
    or_,
    select,
    text,
    tuple_,
    update,
)

from managed.domain.errors import (
    AlreadyExists,
    Conflict,
    JobCancelled,
    Json,
    NotFound,
    Paused,
    ServerBusy,
)
from managed.domain.events import NewEvent
from managed.domain.jobs import HELD_IN_A_PAUSE, Job, JobKind, JobStatus, Preemption, preemption
from managed.domain.windows import opening_of
from managed.storage import events
from managed.storage.beginning import may_begin
from managed.storage.database import reading, writing
from managed.storage.handover import IN_LINE, hand_over, hand_over_free_servers, lock_server
from managed.storage.rows import job_from_row, steps_of
from managed.storage.tables import jobs, servers
from managed.storage.waiting import wake_to_stop
from managed.storage.windows import MissedWindow, pause_within, record_missed_within

TOO_LATE = "its window closed before it could begin"


@dataclass(frozen=True)
class NewJob:
    """What somebody asks for. `run_key` makes it unique among the jobs of this kind on this server
    (a window's run, say); at `start_by` it is too late to begin.
    """

    server_id: str
    kind: JobKind
    workflow_version: int
    parameters: Mapping[str, Json]
    time_limit: timedelta
    requested_by: str
    run_key: str | None = None
    start_by: datetime | None = None


class JobQueue:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, new: NewJob, now: datetime) -> Job:
        """Store the job, committed, before anybody is told of it.

        Raises ServerBusy while another job holds the server or is in line for it, unless the new
        one goes before both (then the holder is asked to stop at its next safe point, the new job
        waits for it, and the one that was in line is cancelled); AlreadyExists (with the job's id)
        for a run key that was used; NotFound for the server; Paused in a pause, unless it is
        urgent.
        """
        with writing(self._engine) as connection:
            return self.submit_within(connection, new, now)

    def submit_within(self, connection: Connection, new: NewJob, now: datetime) -> Job:
        """The same inside a transaction of the caller's, so that a new server and its first job
        appear together. The server's row is locked, so what is found here holds until the commit.
        """
        _require_server(connection, new.server_id)
        _refuse_used_key(connection, new)
        holder, in_line = _place(connection, new.server_id, new.kind)
        reason = f"a {new.kind} job goes before it"
        if in_line is not None:
            _end_unbegun(connection, in_line, reason, now)
        if holder is not None and not holder.cancel_requested:
            _request_cancel(connection, holder, reason, now)
        job_id = str(uuid.uuid4())
        connection.execute(
            insert(jobs).values(
                id=job_id,
                server_id=new.server_id,
                kind=new.kind.value,
                workflow_version=new.workflow_version,
                status=JobStatus.QUEUED.value,
                parameters=dict(new.parameters),
                requested_by=new.requested_by,
                run_key=new.run_key,
                start_by=new.start_by,
                holds_server=holder is None,
                created_at=now,
                deadline=now + new.time_limit,
                warnings=[],
                run_numbers={},
            )
        )
        submitted: dict[str, Json] = {"kind": new.kind.value, "by": new.requested_by}
        events.append(connection, job_id, [NewEvent(now, "job_submitted", submitted)])
        return _read(connection, job_id)

    def busy_servers(self) -> dict[str, str]:
        """The servers that a job holds or is in line for, each with a sentence that says so. There
        is no place there for another job, but for one that goes before.
        """
        # Written out, as the index of open jobs has it. Of two jobs the holder is the last one.
        query = (
            select(jobs.c.server_id, jobs.c.kind, jobs.c.holds_server)
            .where(text("status IN ('queued','running','waiting')"))
            .order_by(jobs.c.holds_server)
        )
        with reading(self._engine) as connection:
            return {
                row.server_id: occupation(row.kind, is_in_line=not row.holds_server)
                for row in connection.execute(query)
            }

    def job(self, job_id: str) -> Job:
        with reading(self._engine) as connection:
            return _read(connection, job_id)

    def find(
        self,
        *,
        server_id: str | None = None,
        customer_id: str | None = None,
        kind: JobKind | None = None,
        status: JobStatus | None = None,
        requested_by: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: Job | None = None,
        limit: int = 50,
    ) -> Sequence[Job]:
        """Jobs, newest first, without their steps; those asked for from `since` to just before
        `until`; `before` is the last one of the page before.
        """
        newest_first = (jobs.c.created_at.desc(), jobs.c.id.desc())
        # Their ids first: an index holds all that this needs, and so is preferred to a walk through
        # the jobs of other kinds, of which a whole night may lie in between.
        ids = select(jobs.c.id).order_by(*newest_first).limit(limit)
        if server_id is not None:
            ids = ids.where(jobs.c.server_id == server_id)
        if customer_id is not None:
            own = select(servers.c.id).where(servers.c.customer_id == customer_id)
            ids = ids.where(jobs.c.server_id.in_(own))
        if kind is not None:
            ids = ids.where(jobs.c.kind == kind.value)
        if status is not None:
            ids = ids.where(jobs.c.status == status.value)
        if requested_by is not None:
            ids = ids.where(jobs.c.requested_by == requested_by)
        if since is not None:
            ids = ids.where(jobs.c.created_at >= since)
        if until is not None:
            ids = ids.where(jobs.c.created_at < until)
        if before is not None:
            last = (before.created_at, before.job_id)
            ids = ids.where(tuple_(jobs.c.created_at, jobs.c.id) < last)
        page = ids.subquery()
        query = select(jobs).join(page, page.c.id == jobs.c.id).order_by(*newest_first)
        with reading(self._engine) as connection:
            return [job_from_row(row) for row in connection.execute(query)]

    def cancel(self, job_id: str, reason: str, now: datetime) -> Job:
        """Ask the job to stop; it does at its next safe point, and one in line for its server at
        once. A final job raises Conflict.
        """
        with writing(self._engine) as connection:
            return self.cancel_within(connection, job_id, reason, now)

    def cancel_within(self, connection: Connection, job_id: str, reason: str, now: datetime) -> Job:
        """The same inside a transaction of the caller's."""
        lock_server(connection, _read(connection, job_id).server_id)
        job = _read(connection, job_id)
        if job.status.is_final:
            raise Conflict(f"the job has ended: it {job.status}", job_id=job_id)
        if job.is_in_line:
            _end_unbegun(connection, job, reason, now)
        elif not job.cancel_requested:
            _request_cancel(connection, job, reason, now)
        return _read(connection, job_id)

    def to_send(self, now: datetime, resend_after: timedelta, limit: int = 500) -> Sequence[str]:
        """Jobs that a worker should hear of: unsent, sent long ago, due again, or abandoned since
        they were sent.

        Jobs that do not hold their server yet are left out: they cannot be claimed. A server that
        nobody holds is handed to a job that waits for it before.
        """
        hand_over_free_servers(self._engine)
        sent = jobs.c.sent_at
        due = or_(jobs.c.next_attempt_at.is_(None), jobs.c.next_attempt_at <= now)
        abandoned = and_(jobs.c.status == "running", jobs.c.lease_expires_at <= now)
        sent_before = and_(abandoned, sent < jobs.c.lease_expires_at)
        unheard = or_(sent.is_(None), sent <= now - resend_after, sent_before)
        query = (
            select(jobs.c.id)
            .where(jobs.c.holds_server, unheard, may_begin(now))
            .where(or_(and_(jobs.c.status == "queued", due), abandoned))
            .order_by(jobs.c.created_at)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [row.id for row in connection.execute(query)]

    def end_too_late(self, now: datetime, limit: int = 500) -> Sequence[Job]:
        """End the jobs that have not begun in their time; returns them as they are then. Those that
        a window had started are recorded as missed in the transaction in which they end.
        """
        query = (
            select(jobs.c.id, jobs.c.server_id)
            .where(jobs.c.status == "queued", jobs.c.started_at.is_(None), jobs.c.start_by <= now)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            found = connection.execute(query).all()
        ended = [self._end_if_too_late(row.id, row.server_id, now) for row in found]
        return [job for job in ended if job is not None]

    def _end_if_too_late(self, job_id: str, server_id: str, now: datetime) -> Job | None:
        with writing(self._engine) as connection:
            lock_server(connection, server_id)
            job = _read(connection, job_id)
            if job.status is not JobStatus.QUEUED or job.started_at is not None:
                return None
            _end_unbegun(connection, job, TOO_LATE, now)
            _record_missed(connection, job, now)
            if job.holds_server:
                hand_over(connection, server_id)
            return _read(connection, job_id)

    def mark_sent(self, job_ids: Sequence[str], now: datetime) -> None:
        if job_ids:
            with writing(self._engine) as connection:
                connection.execute(update(jobs).where(jobs.c.id.in_(job_ids)).values(sent_at=now))

    def mark_unsent(self, job_ids: Sequence[str]) -> None:
        """Nobody could be told of these: they are to be sent as soon as somebody can."""
        if job_ids:
            with writing(self._engine) as connection:
                connection.execute(update(jobs).where(jobs.c.id.in_(job_ids)).values(sent_at=None))


def _read(connection: Connection, job_id: str) -> Job:
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id}", job_id=job_id)
    return job_from_row(row, steps_of(connection, job_id))


def _require_server(connection: Connection, server_id: str) -> None:
    """Locks the server's row: two submissions for one server go one after the other."""
    status = lock_server(connection, server_id)
    if status is None or status == "deleted":
        raise NotFound(f"there is no server {server_id}", server_id=server_id)


def _refuse_used_key(connection: Connection, new: NewJob) -> None:
    if new.run_key is None:
        return
    query = select(jobs.c.id).where(
        jobs.c.server_id == new.server_id,
        jobs.c.kind == new.kind.value,
        jobs.c.run_key == new.run_key,
    )
    used = connection.execute(query).scalar()
    if used is not None:
        raise AlreadyExists(f"the run {new.run_key!r} exists already", job_id=used)


def _place(connection: Connection, server_id: str, kind: JobKind) -> tuple[Job | None, Job | None]:
    """The server's holder and the job in line, both of which a job of this kind goes before; Paused
    or ServerBusy when there is no place for it.
    """
    _refuse_in_a_pause(connection, kind)
    holder = _one_of(connection, server_id, jobs.c.holds_server)
    in_line = _one_of(connection, server_id, IN_LINE)
    for present in (holder, in_line):
        if present is not None:
            _require_precedence(present, kind)
    return holder, in_line


def _refuse_in_a_pause(connection: Connection, kind: JobKind) -> None:
    pause = pause_within(connection)
    if pause is not None and kind in HELD_IN_A_PAUSE:
        raise Paused(
            f"everything was paused by {pause.by}: {pause.reason}",
            hint="DELETE /v1/pause, or `managed pause end`, ends the pause.",
            since=pause.since.isoformat(),
        )


def _one_of(connection: Connection, server_id: str, which: ColumnElement[bool]) -> Job | None:
    row = connection.execute(select(jobs).where(jobs.c.server_id == server_id, which)).one_or_none()
    return job_from_row(row) if row is not None else None


def _require_precedence(present: Job, asked: JobKind) -> None:
    """ServerBusy unless the job that is asked for goes before the present one."""
    if preemption(present, asked) is Preemption.REFUSE:
        raise ServerBusy(
            occupation(present.kind, is_in_line=present.is_in_line),
            hint=f"Wait for job {present.job_id} to end, or cancel it.",
            server_id=present.server_id,
            job_id=present.job_id,
            job_kind=present.kind.value,
        )


def occupation(kind: str, *, is_in_line: bool = False) -> str:
    """What is said of the job for which a server has no place for another."""
    does = "is in line for" if is_in_line else "is working on"
    return f"a {kind} job {does} this server"


def _end_unbegun(connection: Connection, job: Job, reason: str, now: datetime) -> None:
    """End a job that has not begun: there is nothing to wait for or to take back."""
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job.job_id)
        .values(
            status=JobStatus.CANCELLED.value,
            holds_server=False,
            cancel_requested=reason,
            error=JobCancelled(reason).as_json(),
            finished_at=now,
        )
    )
    ended = [
        NewEvent(now, "cancel_requested", {"reason": reason}),
        NewEvent(now, "job_ended", {"status": JobStatus.CANCELLED.value}),
    ]
    events.append(connection, job.job_id, ended)


def _record_missed(connection: Connection, job: Job, now: datetime) -> None:
    """What is missed when this job did not begin in time: the opening that it was for, if any."""
    opening = opening_of(job)
    if opening is not None:
        missed = MissedWindow(job.server_id, job.kind, opening, TOO_LATE, now)
        record_missed_within(connection, [missed])


def _request_cancel(connection: Connection, job: Job, reason: str, now: datetime) -> None:
    """Store the wish; a job that waits and may be interrupted is woken for it at once."""
    connection.execute(update(jobs).where(jobs.c.id == job.job_id).values(cancel_requested=reason))
    wake_to_stop(connection, job.job_id)
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job.job_id, jobs.c.status == "queued")
        .values(sent_at=None, next_attempt_at=None)
    )
    events.append(connection, job.job_id, [NewEvent(now, "cancel_requested", {"reason": reason})])
