"""How the engine holds jobs, and ends what works for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from managed.domain.errors import Json
from managed.domain.events import NewEvent
from managed.domain.jobs import Job, JobStatus, StepResult
from managed.domain.questions import Question


class ChildProcesses(Protocol):
    """How the engine knows and ends the process groups that work for a step."""

    def describe(self, group: int) -> Mapping[str, Json]:
        """What identifies the group for a successor (host, pid, start time)."""
        ...

    def end(self, child: Mapping[str, Json]) -> bool:
        """Kill the group if it is of this host and still the same; was there one to kill?"""
        ...


class JobStore(Protocol):
    """What the engine does with a job that it holds a lease on.

    `job` always carries the lease; when another worker has taken over, every method raises
    LeaseLost and writes nothing.
    """

    def claim(
        self, job_id: str, owner: str, now: datetime, lease_for: timedelta
    ) -> tuple[Job, Mapping[str, Json] | None] | None:
        """Take the job if it is free; with it the child process that an earlier holder left."""
        ...

    def renew(self, job: Job, now: datetime, lease_for: timedelta) -> None: ...

    def release(self, job: Job, not_before: datetime | None = None) -> None:
        """Give the job back as it is, for any worker, but not before that time."""
        ...

    def give_back(self, job: Job) -> bool:
        """An outage kept the worker from keeping its lease or the record. It works on the job no
        more: then the job is as released, and True; or somebody took it over and has counted a
        death, which was none. Never raises LeaseLost.
        """
        ...

    def reread(self, job: Job) -> Job: ...

    def start_step(self, job: Job, step: str, now: datetime, said: Sequence[NewEvent] = ()) -> Job:
        """Put on record that it begins, and before it what has been said."""
        ...

    def record_child(self, job: Job, child: Mapping[str, Json]) -> None: ...

    def record_step(
        self,
        job: Job,
        result: StepResult,
        warnings: Sequence[str] = (),
        said: Sequence[NewEvent] = (),
    ) -> Job:
        """Put its end on record, and before it what it has said, all or nothing."""
        ...

    def retry_step(self, job: Job) -> None:
        """Let go of the job, as it is to be at its next try, until its `next_attempt_at`."""
        ...

    def park(
        self, job: Job, question: Question, until: datetime, *, interruptible: bool, now: datetime
    ) -> None: ...

    def begin_undo(
        self,
        job: Job,
        verdict: JobStatus,
        error: Mapping[str, Json],
        cut_off: StepResult | None,
        now: datetime,
    ) -> Job: ...

    def finish(
        self,
        job: Job,
        status: JobStatus,
        now: datetime,
        last: StepResult | None = None,
        warnings: Sequence[str] = (),
    ) -> str | None:
        """End the job, with the end of its last step if that is not on record yet, all or nothing;
        returns the id of the job that gets its server next, if one waits.
        """
        ...

    def append_events(self, job: Job, new: Sequence[NewEvent]) -> None: ...
