"""What a job does next: the whole control flow of the engine as one decision.

Steps run in order; the first without a record is next. When a job fails or is cancelled, the undo
of every step that was done or begun runs, last first, and then the job ends with its verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from managed.domain.errors import (
    DeadlineExceeded,
    JobCancelled,
    ManagedError,
    RunLost,
    Unavailable,
    WorkerDied,
)
from managed.domain.jobs import (
    GiveUp,
    Job,
    JobStatus,
    RetryPolicy,
    StepResult,
    TryAgain,
    retry_decision,
)

UNDO_PREFIX = "undo:"
MOST_WORKER_DEATHS = 5


class AnswerOutcome(StrEnum):
    """How a question ended: with facts, past its time, or because the job is to stop."""

    ANSWERED = "answered"
    TIMED_OUT = "timed-out"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class StepPlan:
    """What the decision must know of a step. A step that is not interruptible goes on to its end
    once begun, whoever asked to cancel (dpkg must not be cut off).
    """

    name: str
    interruptible: bool = True
    has_undo: bool = False


@dataclass(frozen=True)
class RunStep:
    name: str


@dataclass(frozen=True)
class UndoStep:
    name: str


@dataclass(frozen=True)
class BeginUndo:
    verdict: JobStatus
    error: ManagedError


@dataclass(frozen=True)
class Finish:
    status: JobStatus


Action = RunStep | UndoStep | BeginUndo | Finish


def next_action(job: Job, plan: Sequence[StepPlan], now: datetime) -> Action:
    """The one thing to do now with a claimed job."""
    if job.verdict is not None:
        return _next_undo(job, plan, job.verdict)
    step = next((s for s in plan if job.done_step(s.name) is None), None)
    if step is None:
        return Finish(JobStatus.SUCCEEDED)
    if _may_stop_before(job, step):
        if job.cancel_requested:
            return BeginUndo(JobStatus.CANCELLED, JobCancelled(job.cancel_requested))
        if now >= job.deadline:
            return BeginUndo(
                JobStatus.FAILED, DeadlineExceeded(f"the deadline was {job.deadline:%F %T %Z}")
            )
    return RunStep(step.name)


def with_step(job: Job, result: StepResult) -> Job:
    """The job as it is once this step, or its undo, is on record."""
    return replace(job, steps=(*job.steps, result))


def death_of_workers(job: Job) -> WorkerDied | None:
    """Why the step or undo that was begun is not begun again by yet another worker, or None. A
    crash leaves no error that could be counted as a failed attempt.
    """
    if job.worker_deaths < MOST_WORKER_DEATHS:
        return None
    return WorkerDied(
        f"the worker died {job.worker_deaths} times in this step",
        hint="Look at the workers' logs and at the memory of their machine.",
        step=job.started_step,
    )


def after_error(
    job: Job,
    step: StepPlan,
    policy: RetryPolicy,
    error: ManagedError,
    *,
    began: datetime,
    now: datetime,
) -> TryAgain | GiveUp:
    """What follows when a try of the present step, or of its undo, has failed.

    Who waits for the job to stop does not wait for tries that begin work anew. A begun
    uninterruptible step is tried on while its server is merely not reached: dpkg may be at work
    there, and the time for it is short. Undos mind neither cancel nor deadline.
    """
    if job.verdict is not None:
        return retry_decision(policy, error, job, began, now, deadline=None)
    if _wish_counts(job, step, error):
        return GiveUp("the job is to stop")
    return retry_decision(policy, error, job, began, now, job.deadline)


def verdict_after(job: Job, step: StepPlan, error: ManagedError) -> tuple[JobStatus, ManagedError]:
    """How a job ends whose step is given up for this error: as cancelled when the wish to stop
    ended it and more tries might have helped, else as failed.
    """
    if error.retryable and _wish_counts(job, step, error):
        return JobStatus.CANCELLED, JobCancelled(job.cancel_requested)
    return JobStatus.FAILED, error


def _wish_counts(job: Job, step: StepPlan, error: ManagedError) -> bool:
    """Is the job to stop, and is this error a place where its step may?"""
    return bool(job.cancel_requested) and (step.interruptible or isinstance(error, RunLost))


def for_next_try(job: Job, error: ManagedError, *, now: datetime, at: datetime) -> Job:
    """The job as it waits for its next try. An answer that came stays true, whatever failed
    after it; one that did not come in time is asked for anew. Only a lost run has a successor.
    """
    is_outage = isinstance(error, Unavailable)
    answered = job.answer is not None and job.answer.get("outcome") == AnswerOutcome.ANSWERED
    keeps_answer = answered and not isinstance(error, RunLost)
    numbers = dict(job.run_numbers)
    if isinstance(error, RunLost):
        step = job.started_step.removeprefix(UNDO_PREFIX)
        numbers[step] = job.run_number(step) + 1
    return replace(
        job,
        step_attempt=job.step_attempt + 1,
        outage_tries=job.outage_tries + is_outage,
        outage_since=(job.outage_since or now) if is_outage else None,
        next_attempt_at=at,
        answer=job.answer if keeps_answer else None,
        run_numbers=numbers,
    )


def _may_stop_before(job: Job, step: StepPlan) -> bool:
    """Is this a safe point? Yes between steps, inside an interruptible one (also when its wait
    ran out of time), and when the poller gave the wait up (`interrupted`); an answer that came
    is worked on first.
    """
    outcome = job.answer.get("outcome") if job.answer else None
    if outcome == AnswerOutcome.INTERRUPTED:
        return True
    return job.started_step != step.name or (
        step.interruptible and outcome != AnswerOutcome.ANSWERED
    )


def _next_undo(job: Job, plan: Sequence[StepPlan], verdict: JobStatus) -> Action:
    for step in reversed(plan):
        begun = job.done_step(step.name) or job.has_failed(step.name)
        if step.has_undo and begun and not job.is_undone(step.name):
            return UndoStep(step.name)
    return Finish(verdict)
