"""How far jobs have come: one cheap question for all that somebody follows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, select

from managed.domain.jobs import JobStatus
from managed.storage.database import reading
from managed.storage.tables import jobs


@dataclass(frozen=True)
class JobProgress:
    """The number of the job's newest event, and whether another can follow."""

    last_seq: int
    is_final: bool


def progress_of(engine: Engine, job_ids: Collection[str]) -> Mapping[str, JobProgress]:
    """The progress of these jobs; unknown ones are left out."""
    query = select(jobs.c.id, jobs.c.event_seq, jobs.c.status).where(jobs.c.id.in_(job_ids))
    with reading(engine) as connection:
        return {
            row.id: JobProgress(row.event_seq, JobStatus(row.status).is_final)
            for row in connection.execute(query)
        }
