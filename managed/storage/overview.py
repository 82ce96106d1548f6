"""What happens tonight, over all servers: a few questions, however many jobs there were."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine, and_, func, select

from managed.domain.events import Event
from managed.domain.jobs import Job, JobKind, JobStatus
from managed.storage.database import reading
from managed.storage.rows import job_from_row
from managed.storage.tables import events, job_steps, jobs, servers

PROGRESS_TYPES: Final = (
    "playbook_task",
    "patch_progress",
    "backup_progress",
    "restore_progress",
    "check_progress",
    "manifest_progress",
    "database_load",
    "health_awaited",
    "backup_step",
    "restore_step",
    "install_step",
)
# How far back a job's newest progress is looked for, in events: a page that asks every few seconds
# must not read whole logs.
_PROGRESS_WITHIN: Final = 200


@dataclass(frozen=True)
class JobOnServer:
    """`step` is the one that failed, or the one that it is at; may be empty. `progress` is its
    newest event that tells of progress in that step.
    """

    job: Job
    server_name: str
    step: str
    progress: Event | None = None


class Overview:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def failed(self, since: datetime, limit: int = 100) -> Sequence[JobOnServer]:
        """Jobs that failed at that time or later, newest first."""
        query = (
            select(jobs, servers.c.name.label("server_name"))
            .join(servers, servers.c.id == jobs.c.server_id)
            .where(jobs.c.status == JobStatus.FAILED.value, jobs.c.finished_at >= since)
            .order_by(jobs.c.finished_at.desc(), jobs.c.id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
            steps = _failed_steps(connection, [row.id for row in rows])
        return [
            JobOnServer(job_from_row(row), row.server_name, steps.get(row.id, "")) for row in rows
        ]

    def under_way(self, limit: int = 100) -> Sequence[JobOnServer]:
        """Jobs that have not ended: those that have begun first, the longest under way first."""
        open_ones = [status.value for status in JobStatus if not status.is_final]
        query = (
            select(jobs, servers.c.name.label("server_name"))
            .join(servers, servers.c.id == jobs.c.server_id)
            .where(jobs.c.status.in_(open_ones))
            .order_by(jobs.c.started_at.is_(None), jobs.c.started_at, jobs.c.created_at, jobs.c.id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
            progress = _newest_progress(connection, [row.id for row in rows])
        return [
            JobOnServer(job_from_row(row), row.server_name, row.started_step, progress.get(row.id))
            for row in rows
        ]

    def succeeded(self, since: datetime) -> Mapping[JobKind, int]:
        """How many jobs of each kind succeeded at that time or later."""
        query = (
            select(jobs.c.kind, func.count().label("ended"))
            .where(jobs.c.status == JobStatus.SUCCEEDED.value, jobs.c.finished_at >= since)
            .group_by(jobs.c.kind)
            .order_by(jobs.c.kind)
        )
        with reading(self._engine) as connection:
            return {JobKind(row.kind): row.ended for row in connection.execute(query)}

    def server_names(self, server_ids: Collection[str]) -> Mapping[str, str]:
        """Also those of deleted servers."""
        query = select(servers.c.id, servers.c.name).where(servers.c.id.in_(server_ids))
        with reading(self._engine) as connection:
            return {row.id: row.name for row in connection.execute(query)}

    def last_patch(self, server_id: str) -> str | None:
        """The id of the newest patch job that has changed packages."""
        query = (
            select(jobs.c.id)
            .join(job_steps, job_steps.c.job_id == jobs.c.id)
            .where(
                jobs.c.server_id == server_id,
                jobs.c.kind == JobKind.PATCH.value,
                job_steps.c.name == "update",
                job_steps.c.status == "done",
            )
            .order_by(jobs.c.created_at.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            return connection.execute(query).scalar_one_or_none()


def _failed_steps(connection: Connection, job_ids: Collection[str]) -> Mapping[str, str]:
    query = (
        select(job_steps.c.job_id, job_steps.c.name)
        .where(job_steps.c.job_id.in_(job_ids), job_steps.c.status == "failed")
        .order_by(job_steps.c.position)
    )
    return {row.job_id: row.name for row in connection.execute(query)}


def _newest_progress(connection: Connection, job_ids: Collection[str]) -> Mapping[str, Event]:
    """Of the step that each job is at; older ones say nothing of the present."""
    newest = (
        select(events.c.job_id, func.max(events.c.seq).label("seq"))
        .join(jobs, jobs.c.id == events.c.job_id)
        .where(
            events.c.job_id.in_(job_ids),
            events.c.seq > jobs.c.event_seq - _PROGRESS_WITHIN,
            events.c.at >= jobs.c.step_started_at,
            events.c.type.in_(PROGRESS_TYPES),
        )
        .group_by(events.c.job_id)
        .subquery()
    )
    query = select(events).join(
        newest, and_(events.c.job_id == newest.c.job_id, events.c.seq == newest.c.seq)
    )
    return {
        row.job_id: Event(row.job_id, row.seq, row.at, row.server_id, row.type, row.data)
        for row in connection.execute(query)
    }
