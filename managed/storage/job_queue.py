"""Submitting, reading, cancelling and finding jobs: everything that needs no lease."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, and_, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from managed.domain.errors import AlreadyExists, Conflict, Json, NotFound, ServerBusy
from managed.domain.events import NewEvent
from managed.domain.jobs import Job, JobKind, JobStatus, Preemption, preemption
from managed.domain.progress import AnswerOutcome
from managed.storage import events
from managed.storage.database import reading, writing
from managed.storage.handover import hand_over_free_servers, lock_server
from managed.storage.rows import job_from_row, steps_of
from managed.storage.tables import jobs

_FINAL = tuple(status.value for status in JobStatus if status.is_final)


@dataclass(frozen=True)
class NewJob:
    """What somebody asks for. `run_key` makes it unique (a window's run, say)."""

    server_id: str
    kind: JobKind
    workflow_version: int
    parameters: Mapping[str, Json]
    time_limit: timedelta
    requested_by: str
    run_key: str | None = None


class JobQueue:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, new: NewJob, now: datetime) -> Job:
        """Store the job, committed, before anybody is told of it.

        Raises ServerBusy while another job holds the server, unless the new one goes before it
        (then the holder is asked to stop at its next safe point and the new job waits for it);
        AlreadyExists (with the job's id) for a run key that was used; NotFound for the server.
        """
        with writing(self._engine) as connection:
            return self.submit_within(connection, new, now)

    def submit_within(self, connection: Connection, new: NewJob, now: datetime) -> Job:
        """The same inside a transaction of the caller's, so that a new server and its first job
        appear together.
        """
        _require_server(connection, new.server_id)
        _refuse_used_key(connection, new.run_key)
        holder = _holder(connection, new.server_id)
        if holder is not None:
            _make_way(connection, holder, new.kind, now)
        job_id = str(uuid.uuid4())
        try:
            with connection.begin_nested():
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
                        holds_server=holder is None,
                        created_at=now,
                        deadline=now + new.time_limit,
                        warnings=[],
                        run_numbers={},
                    )
                )
        except IntegrityError as error:
            raise ServerBusy(
                "another job took the server at the same moment",
                hint="Look at the server's jobs and ask again when the present one has ended.",
                server_id=new.server_id,
            ) from error
        submitted: dict[str, Json] = {"kind": new.kind.value, "by": new.requested_by}
        events.append(connection, job_id, [NewEvent(now, "job_submitted", submitted)])
        return _read(connection, job_id)

    def job(self, job_id: str) -> Job:
        with reading(self._engine) as connection:
            return _read(connection, job_id)

    def find(
        self,
        *,
        server_id: str | None = None,
        kind: JobKind | None = None,
        status: JobStatus | None = None,
        before: Job | None = None,
        limit: int = 50,
    ) -> Sequence[Job]:
        """Jobs, newest first, without their steps; `before` is the last one of the page before."""
        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if server_id is not None:
            query = query.where(jobs.c.server_id == server_id)
        if kind is not None:
            query = query.where(jobs.c.kind == kind.value)
        if status is not None:
            query = query.where(jobs.c.status == status.value)
        if before is not None:
            query = query.where(
                tuple_(jobs.c.created_at, jobs.c.id) < (before.created_at, before.job_id)
            )
        with reading(self._engine) as connection:
            return [job_from_row(row) for row in connection.execute(query)]

    def cancel(self, job_id: str, reason: str, now: datetime) -> Job:
        """Ask the job to stop; it does at its next safe point. A final job raises Conflict."""
        with writing(self._engine) as connection:
            job = _read(connection, job_id)
            if job.status.is_final:
                raise Conflict(f"the job has ended: it {job.status}", job_id=job_id)
            if not job.cancel_requested:
                _request_cancel(connection, job, reason, now)
            return _read(connection, job_id)

    def to_send(self, now: datetime, resend_after: timedelta, limit: int = 500) -> Sequence[str]:
        """Jobs that a worker should hear of: unsent, sent long ago, due again, or abandoned.

        Jobs that do not hold their server yet are left out: they cannot be claimed. A server that
        nobody holds is handed to a job that waits for it before.
        """
        hand_over_free_servers(self._engine)
        unheard = or_(jobs.c.sent_at.is_(None), jobs.c.sent_at <= now - resend_after)
        due = or_(jobs.c.next_attempt_at.is_(None), jobs.c.next_attempt_at <= now)
        abandoned = and_(jobs.c.status == "running", jobs.c.lease_expires_at <= now)
        query = (
            select(jobs.c.id)
            .where(jobs.c.holds_server, unheard)
            .where(or_(and_(jobs.c.status == "queued", due), abandoned))
            .order_by(jobs.c.created_at)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [row.id for row in connection.execute(query)]

    def mark_sent(self, job_ids: Sequence[str], now: datetime) -> None:
        if job_ids:
            with writing(self._engine) as connection:
                connection.execute(update(jobs).where(jobs.c.id.in_(job_ids)).values(sent_at=now))


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


def _refuse_used_key(connection: Connection, run_key: str | None) -> None:
    if run_key is None:
        return
    used = connection.execute(select(jobs.c.id).where(jobs.c.run_key == run_key)).scalar()
    if used is not None:
        raise AlreadyExists(f"the run {run_key!r} exists already", job_id=used)


def _holder(connection: Connection, server_id: str) -> Job | None:
    query = select(jobs).where(jobs.c.server_id == server_id, jobs.c.holds_server)
    row = connection.execute(query).one_or_none()
    return job_from_row(row) if row is not None else None


def _make_way(connection: Connection, holder: Job, asked: JobKind, now: datetime) -> None:
    decision = preemption(holder.kind, asked, holder_undoing=holder.verdict is not None)
    if decision is Preemption.REFUSE:
        raise ServerBusy(
            f"a {holder.kind} job is working on this server",
            hint=f"Wait for job {holder.job_id} to end, or cancel it.",
            server_id=holder.server_id,
            job_id=holder.job_id,
            job_kind=holder.kind.value,
        )
    if not holder.cancel_requested:
        _request_cancel(connection, holder, f"a {asked} job goes before it", now)


def _request_cancel(connection: Connection, job: Job, reason: str, now: datetime) -> None:
    """Store the wish; a job that waits and may be interrupted is woken for it at once."""
    connection.execute(
        update(jobs).where(jobs.c.id == job.job_id).values(cancel_requested=reason or "cancelled")
    )
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job.job_id, jobs.c.status == "waiting", jobs.c.interruptible)
        .values(
            status="queued",
            sent_at=None,
            next_attempt_at=None,
            answer={"outcome": AnswerOutcome.INTERRUPTED.value},
        )
    )
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job.job_id, jobs.c.status == "queued")
        .values(sent_at=None, next_attempt_at=None)
    )
    events.append(connection, job.job_id, [NewEvent(now, "cancel_requested", {"reason": reason})])
