"""The engine: takes one job as far as it goes now.

It claims the job, and while it holds the lease does the next action (`domain.progress`), records
it, and goes on, until the job waits, is due later, has ended, or belongs to another worker. Killed
anywhere, the job costs its next holder at most the step that was under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial

import structlog

from managed.domain.documents import require_bounded
from managed.domain.errors import (
    InternalError,
    Json,
    LeaseLost,
    ManagedError,
    Unavailable,
    UnknownWorkflow,
)
from managed.domain.jobs import (
    GiveUp,
    Job,
    JobKind,
    JobStatus,
    StepResult,
    StepStatus,
    TryAgain,
)
from managed.domain.progress import (
    UNDO_PREFIX,
    BeginUndo,
    Finish,
    RunStep,
    StepPlan,
    UndoStep,
    after_error,
    death_of_workers,
    for_next_try,
    next_action,
    verdict_after,
    with_step,
)
from managed.ports import ChildProcesses, Clock, JobStore, Stopwatch
from managed.workflows.heartbeat import Heartbeat
from managed.workflows.steps import (
    Done,
    Outcome,
    Step,
    StepContext,
    StepFunction,
    Wait,
    Workflow,
)
from managed.workflows.world import World

log = structlog.get_logger()

Workflows = Mapping[tuple[JobKind, int], Workflow]


class RunEnd(StrEnum):
    """Why the engine let go of a job."""

    NOT_CLAIMED = "not-claimed"
    WAITING = "waiting"
    LATER = "later"
    ENDED = "ended"
    RELEASED = "released"
    LEASE_LOST = "lease-lost"


Closing = Callable[[], RunEnd]
"""The last write of this claim; done when the heartbeat has stopped, so that nothing follows it."""

_NEWER_VERSION_DELAY = timedelta(seconds=30)
_AGAIN_SECONDS = 0.5
_MOST_TRIES = 1800


@dataclass(frozen=True)
class Engine:
    """`send` tells the workers of a job that may run now, `ended` whoever counts them of one that
    has come to its end; `stopping` asks whether this worker is to stop (then a job is given back
    between two steps).
    """

    store: JobStore
    workflows: Workflows
    world: World
    children: ChildProcesses
    clock: Clock
    stopwatch: Stopwatch
    owner: str
    lease_for: timedelta
    send: Callable[[str], None]
    ended: Callable[[Job], None] = lambda _job: None
    stopping: Callable[[], bool] = lambda: False

    def run(self, job_id: str) -> RunEnd:
        """Take the job as far as it goes now. Never raises for what happens inside the job."""
        claimed = self.store.claim(job_id, self.owner, self.clock(), self.lease_for)
        if claimed is None:
            return RunEnd.NOT_CLAIMED
        with structlog.contextvars.bound_contextvars(
            job_id=job_id, kind=claimed[0].kind.value, server_id=claimed[0].server_id
        ):
            return self._hold(*claimed)

    def _hold(self, job: Job, survivor: Mapping[str, Json] | None) -> RunEnd:
        heartbeat = Heartbeat(
            job, self.store, self.children, self.clock, self.stopwatch, self.lease_for
        )
        try:
            with heartbeat:
                if survivor is not None and self.children.end(survivor):
                    heartbeat.emit("survivor_ended", survivor)
                closing = self._work(job, heartbeat)
            self._check_lease(job, heartbeat)
            return closing()
        except LeaseLost:
            log.warning("lease_not_kept", outage=heartbeat.has_met_outage)
            if not heartbeat.has_met_outage:
                return RunEnd.LEASE_LOST
        except Unavailable as outage:
            log.warning("job_not_recorded", error=outage.code)
        return self._give_back(job)

    def _give_back(self, job: Job) -> RunEnd:
        """In an outage neither a lease is kept nor anything put on record: give the job back as
        soon as that is over. A lease that runs out tells of a worker that died in the step, or
        stood still in it; this one did neither.
        """
        for _ in range(_MOST_TRIES):
            try:
                return RunEnd.RELEASED if self.store.give_back(job) else RunEnd.LEASE_LOST
            except Unavailable:
                if self.stopping():
                    break
                threading.Event().wait(_AGAIN_SECONDS)
        return RunEnd.LEASE_LOST

    def _work(self, job: Job, heartbeat: Heartbeat) -> Closing:
        workflow = self.workflows.get((job.kind, job.workflow_version))
        if workflow is None:
            return self._without_workflow(job, heartbeat)
        plan = [step.plan for step in workflow.steps]
        while True:
            if self.stopping():
                return partial(self._release, job)
            match next_action(job, plan, self.clock()):
                case Finish(status):
                    return partial(self._finish, job, status)
                case BeginUndo(verdict, error):
                    job = self._begin_undo(job, verdict, error, heartbeat)
                    continue
                case UndoStep(name):
                    way = _undo_of(workflow.step(name))
                case RunStep(name):
                    way = _way_of(workflow.step(name))
            with structlog.contextvars.bound_contextvars(step=way.started_as):
                after = self._try(job, way, plan, heartbeat)
            if not isinstance(after, Job):
                return after
            job = after

    def _try(
        self, job: Job, way: _Way, plan: Sequence[StepPlan], heartbeat: Heartbeat
    ) -> Job | Closing:
        """One try of a step or of its undo, recorded when it comes to an end: when it went well
        and nothing is left to do, with the job's own end.
        """
        step = way.step
        with heartbeat.said() as said:
            job = self.store.start_step(job, way.started_as, self.clock(), said)
        context = self._context(job, heartbeat)
        log.info("step_begun", attempt=job.step_attempt)
        try:
            outcome = self._guarded(context, way)
        except ManagedError as error:
            return self._after_error(context, way, error, heartbeat)
        self._check_lease(job, heartbeat)
        if isinstance(outcome, Wait):
            log.info("step_waits", question=outcome.question.kind)
            heartbeat.emit("step_waiting", {"step": step.name, "for": outcome.question.kind})
            return partial(self._park, job, step, outcome)
        for warning in outcome.warnings:
            heartbeat.emit("warning", {"step": step.name, "message": warning})
        result = self._step_result(job, step.name, way.done, outcome.result)
        log.info("step_done")
        match next_action(with_step(job, result), plan, self.clock()):
            case Finish(status):
                return partial(self._finish, job, status, result, outcome.warnings)
        with heartbeat.said() as said:
            return self.store.record_step(job, result, outcome.warnings, said)

    def _after_error(
        self, tried: StepContext, way: _Way, error: ManagedError, heartbeat: Heartbeat
    ) -> Job | Closing:
        self._check_lease(tried.job, heartbeat)
        log.warning("step_failed", error=error.code)
        job, step, now = self.store.reread(tried.job), way.step, self.clock()
        match after_error(job, step.plan, step.retry, error, began=tried.now, now=now):
            case TryAgain(at):
                attempt: dict[str, Json] = {"attempt": job.step_attempt, "at": at.isoformat()}
                retry = {"step": step.name, **attempt, **error.as_json()}
                heartbeat.emit("step_retry", retry)
                return partial(self._retry_later, for_next_try(job, error, now=now, at=at))
            case GiveUp(reason) if job.verdict is None:
                failure = {"step": step.name, "gave_up": reason, **error.as_json()}
                heartbeat.emit("step_failed", failure)
                return self._begin_undo(job, *verdict_after(job, step.plan, error), heartbeat)
            case GiveUp():
                failed = self._step_result(job, step.name, StepStatus.UNDO_FAILED, {}, error)
                warning = f"undo of {step.name}: {error.message}"
                with heartbeat.said() as said:
                    return self.store.record_step(job, failed, [warning], said)

    def _begin_undo(
        self, job: Job, verdict: JobStatus, error: ManagedError, heartbeat: Heartbeat
    ) -> Job:
        heartbeat.flush()
        cut_off = None
        if job.started_step:
            cut_off = self._step_result(job, job.started_step, StepStatus.FAILED, {}, error)
        return self.store.begin_undo(job, verdict, error.as_json(), cut_off, self.clock())

    def _without_workflow(self, job: Job, heartbeat: Heartbeat) -> Closing:
        """A newer deployment's job is left for a newer worker; an older one's cannot go on."""
        newest = max((v for kind, v in self.workflows if kind is job.kind), default=0)
        if job.workflow_version > newest:
            return partial(self._leave_for_later, job)
        error = UnknownWorkflow(
            f"version {job.workflow_version} of the {job.kind} workflow is gone",
            hint="Ask for the job again; it starts with the present version.",
        )
        heartbeat.emit("step_failed", error.as_json())
        failed = self._begin_undo(job, JobStatus.FAILED, error, heartbeat)
        return partial(self._finish, failed, JobStatus.FAILED)

    def _context(self, job: Job, heartbeat: Heartbeat) -> StepContext:
        def lend_world() -> World:
            heartbeat.require_lease()
            return self.world

        return StepContext(
            job=job,
            lend_world=lend_world,
            now=self.clock(),
            attempt=job.step_attempt,
            emit=heartbeat.emit,
            register_child=heartbeat.register_child,
        )

    def _guarded(self, context: StepContext, way: _Way) -> Outcome:
        """Turns a defect in a step into an error that fails the job and names the place. A step
        that ends its workers is not done at all.
        """
        step = way.step.name
        deadly = death_of_workers(context.job)
        if deadly is not None:
            raise deadly
        try:
            return _bounded(way.work(context))
        except ManagedError:
            raise
        except Exception as defect:
            log.exception("step_defect")
            raise InternalError(f"{type(defect).__name__} in step {step}", step=step) from defect

    def _check_lease(self, job: Job, heartbeat: Heartbeat) -> None:
        if heartbeat.is_lost:
            raise LeaseLost(f"another worker has taken over job {job.job_id}", job_id=job.job_id)

    def _step_result(
        self,
        job: Job,
        name: str,
        status: StepStatus,
        result: Mapping[str, Json],
        error: ManagedError | None = None,
    ) -> StepResult:
        return StepResult(
            name=name,
            status=status,
            attempt=job.step_attempt,
            started_at=job.step_started_at or self.clock(),
            finished_at=self.clock(),
            result=result,
            error=error.as_json() if error else None,
        )

    def _park(self, job: Job, step: Step, wait: Wait) -> RunEnd:
        now = self.clock()
        self.store.park(
            job, wait.question, now + wait.limit, interruptible=step.interruptible, now=now
        )
        return RunEnd.WAITING

    def _retry_later(self, job: Job) -> RunEnd:
        self.store.retry_step(job)
        return RunEnd.LATER

    def _leave_for_later(self, job: Job) -> RunEnd:
        self.store.release(job, not_before=self.clock() + _NEWER_VERSION_DELAY)
        return RunEnd.LATER

    def _release(self, job: Job) -> RunEnd:
        self.store.release(job)
        return RunEnd.RELEASED

    def _finish(
        self,
        job: Job,
        status: JobStatus,
        last: StepResult | None = None,
        warnings: Sequence[str] = (),
    ) -> RunEnd:
        now = self.clock()
        next_job = self.store.finish(job, status, now, last, warnings)
        if next_job is not None:
            self.send(next_job)
        log.info("job_ended", status=status.value)
        self.ended(replace(job, status=status, finished_at=now))
        return RunEnd.ENDED


@dataclass(frozen=True)
class _Way:
    """A step, forwards or back: what is done, and as what it goes on record."""

    step: Step
    work: StepFunction
    started_as: str
    done: StepStatus


def _bounded(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Done):
        require_bounded(outcome.result)
    return outcome


def _way_of(step: Step) -> _Way:
    return _Way(step, step.run, step.name, StepStatus.DONE)


def _undo_of(step: Step) -> _Way:
    def work(context: StepContext) -> Outcome:
        undone = None if step.undo is None else step.undo(context)
        return Done() if undone is None else undone

    return _Way(step, work, UNDO_PREFIX + step.name, StepStatus.UNDONE)
