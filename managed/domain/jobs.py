"""Jobs and steps: their states, what may follow what, who goes before whom, when to try again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from managed.domain.errors import Json, ManagedError, ServerUnreachable, Unavailable

CLOCKS_KEYS: Final = "clock:"
"""With this begin the run keys that the clock gives; nobody else may use one."""


class JobKind(StrEnum):
    CREATE = "create"
    ENROL = "enrol"
    DELETE = "delete"
    POWER = "power"
    CHECK = "check"
    PATCH = "patch"
    HARDEN = "harden"
    BACKUP = "backup"
    RESCUE = "rescue"
    UNRESCUE = "unrescue"
    RESTORE = "restore"
    RESTORE_FILES = "restore-files"

    @property
    def precedence(self) -> int:
        """Who goes first when two jobs want one server; higher goes before lower.

        What people ask for to bring a server back goes before what keeps it in shape.
        """
        return _PRECEDENCE.get(self, 10)


_PRECEDENCE: Final = {
    JobKind.RESCUE: 100,
    JobKind.RESTORE: 90,
    JobKind.UNRESCUE: 90,
    JobKind.DELETE: 80,
    JobKind.POWER: 50,
    JobKind.RESTORE_FILES: 30,
    JobKind.BACKUP: 20,
}


_GOES_ON_IN_A_PAUSE: Final = frozenset(
    {
        JobKind.RESCUE,
        JobKind.UNRESCUE,
        JobKind.RESTORE,
        JobKind.RESTORE_FILES,
        JobKind.POWER,
        JobKind.DELETE,
    }
)
HELD_IN_A_PAUSE: Final = frozenset(JobKind) - _GOES_ON_IN_A_PAUSE
"""What does not begin while everything is paused. What people need to bring a server back, and
what has begun, goes on.
"""


class JobStatus(StrEnum):
    """`queued` may be claimed; `running` has a lease; `waiting` holds nothing; the rest is final.

    `undoing` is not a state of its own: a job that takes its changes back stays queued, running or
    waiting with `Job.verdict` set, and ends as that verdict.
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class StepStatus(StrEnum):
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"

    @property
    def is_undo(self) -> bool:
        return self in (StepStatus.UNDONE, StepStatus.UNDO_FAILED)


@dataclass(frozen=True)
class StepResult:
    """The checkpoint of a step. `result` is JSON; `error` is `ManagedError.as_json()` or None."""

    name: str
    status: StepStatus
    attempt: int
    started_at: datetime
    finished_at: datetime
    result: Mapping[str, Json] = field(default_factory=dict)
    error: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class Lease:
    """A worker's claim: nobody but the holder of `token` may write for the job."""

    owner: str
    token: int
    expires_at: datetime


@dataclass(frozen=True)
class Job:
    """One durable piece of work on one server, as read from the database; a value, never changed.

    `started_step` is the step that was begun and has no record yet ("undo:" before the name of an
    undo), `step_attempt` counts its tries from 1; `outage_tries` of them failed because something
    did not answer, the last ones in a row since `outage_since`. `worker_deaths` counts the workers
    that were lost in the midst of it. `run_numbers` says for each step with a detached
    run which of its runs is the present one; without an entry it is the first. `question` is what
    a waiting job asks (JSON of a `managed.domain.questions` value) until `question_until`;
    `answer` is what came back. `verdict` is set while changes are undone. `holds_server` says that
    it is the one changing job of its server. `start_by` is when it is too late to begin (its
    window closes then). `deadline` is reckoned from the first claim; before
    it, from the submission. `steps` is in the order of recording.
    """

    job_id: str
    server_id: str
    kind: JobKind
    workflow_version: int
    status: JobStatus
    parameters: Mapping[str, Json]
    created_at: datetime
    deadline: datetime
    started_step: str = ""
    step_started_at: datetime | None = None
    step_attempt: int = 1
    outage_tries: int = 0
    outage_since: datetime | None = None
    worker_deaths: int = 0
    run_numbers: Mapping[str, int] = field(default_factory=dict)
    next_attempt_at: datetime | None = None
    lease: Lease | None = None
    question: Mapping[str, Json] | None = None
    question_number: int = 0
    question_until: datetime | None = None
    answer: Mapping[str, Json] | None = None
    verdict: JobStatus | None = None
    error: Mapping[str, Json] | None = None
    warnings: tuple[str, ...] = ()
    cancel_requested: str = ""
    run_key: str | None = None
    start_by: datetime | None = None
    holds_server: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    requested_by: str = ""
    steps: tuple[StepResult, ...] = ()

    @property
    def is_in_line(self) -> bool:
        """Does it wait for another job to leave its server? Then it has not begun."""
        return self.status is JobStatus.QUEUED and not self.holds_server

    @property
    def gives_way(self) -> bool:
        """May a job that goes before it push it aside? Not while it takes its changes back, nor a
        delete that has its server: what it has begun leaves nothing to bring back.
        """
        return self.verdict is None and not (self.kind is JobKind.DELETE and self.holds_server)

    def done_step(self, name: str) -> StepResult | None:
        """The recorded result of the step, or None if it has not been done."""
        return next((s for s in self.steps if s.name == name and s.status is StepStatus.DONE), None)

    def run_number(self, step: str) -> int:
        """The number of the step's present (or last) detached run, counted from 1."""
        return self.run_numbers.get(step, 1)

    def has_failed(self, name: str) -> bool:
        """Was the step begun and then given up, or cut off by a cancel?"""
        return any(s.name == name and s.status is StepStatus.FAILED for s in self.steps)

    def is_undone(self, name: str) -> bool:
        """Has the undo of the step been recorded, well or not?"""
        return any(s.name == name and s.status.is_undo for s in self.steps)


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed step is tried again; pauses double up to `longest_delay`.

    What does not answer (`Unavailable`) is asked again for as long as `patience`, however often
    that is: it comes back when somebody has mended it. A server that is silent while its job is to
    stop has `stopping_patience`: who waits may be about to bring that very server back. Other
    errors that may pass have few `attempts`, because each does the work anew.
    """

    attempts: int = 5
    patience: timedelta = timedelta(minutes=15)
    stopping_patience: timedelta = timedelta(minutes=1)
    first_delay: timedelta = timedelta(seconds=2)
    longest_delay: timedelta = timedelta(seconds=30)


@dataclass(frozen=True)
class TryAgain:
    at: datetime


@dataclass(frozen=True)
class GiveUp:
    reason: str


def retry_refusal(
    policy: RetryPolicy, error: ManagedError, job: Job, began: datetime
) -> str | None:
    """Why the present try of the job's step, which `began` then and failed with this error, is the
    last one; or None.
    """
    if not error.retryable:
        return "trying again cannot help"
    if isinstance(error, Unavailable):
        is_awaited = job.cancel_requested and isinstance(error, ServerUnreachable)
        patience = policy.stopping_patience if is_awaited else policy.patience
        if began - (job.outage_since or began) >= patience:
            return f"there was no answer for {patience.total_seconds():.0f} seconds"
    elif job.step_attempt - job.outage_tries >= policy.attempts:
        return f"all {policy.attempts} attempts are used up"
    return None


def retry_decision(
    policy: RetryPolicy,
    error: ManagedError,
    job: Job,
    began: datetime,
    now: datetime,
    deadline: datetime | None,
) -> TryAgain | GiveUp:
    """What follows on the try that `began` then and has failed now: another one, or the end.

    `deadline` is None for what must be tried however late it is (an undo).
    """
    refusal = retry_refusal(policy, error, job, began)
    if refusal is not None:
        return GiveUp(refusal)
    delay = min(policy.first_delay * 2 ** min(job.step_attempt - 1, 20), policy.longest_delay)
    if error.retry_after is not None:
        delay = max(delay, timedelta(seconds=error.retry_after))
    if deadline is not None and now + delay >= deadline:
        return GiveUp("the next attempt would be past the job's deadline")
    return TryAgain(now + delay)


class Preemption(StrEnum):
    """What becomes of the job that holds the server when another one is asked for."""

    REFUSE = "refuse"
    AT_SAFE_POINT = "at-safe-point"


def preemption(holder: Job, asked: JobKind) -> Preemption:
    """May `asked` push `holder` off its server? Only what people need to bring a server back may.

    The holder is never interrupted: it is asked to stop and does so at its next safe point.
    """
    if asked.precedence < JobKind.DELETE.precedence or not holder.gives_way:
        return Preemption.REFUSE
    if asked.precedence <= holder.kind.precedence:
        return Preemption.REFUSE
    return Preemption.AT_SAFE_POINT


_LONGEST_COUNTED_PAUSE: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Silence:
    """How long a server has left a job's question unanswered, over several asks that failed. Only
    time in which it was asked counts, and of a pause between two asks no more than a minute: when
    we were the silent ones (an upgrade of ours, say), that tells nothing of the server.
    """

    lasted: timedelta = timedelta(0)
    last_ask_at: datetime | None = None

    def after_failed_ask(self, now: datetime) -> Silence:
        pause = now - self.last_ask_at if self.last_ask_at else timedelta(0)
        return Silence(self.lasted + min(pause, _LONGEST_COUNTED_PAUSE), now)

    def is_safe_point(self, limit: timedelta) -> bool:
        """Has a server that works for an uninterruptible step been silent so long that it hangs?

        Then waiting for its package manager serves nobody, and a pending cancel may take hold.
        """
        return self.lasted >= limit
