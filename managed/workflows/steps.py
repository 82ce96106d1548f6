"""What workflows are made of: steps, what a step may answer, and what a step can reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from managed.domain.connections import Endpoint
from managed.domain.errors import EvidenceMissing, Json
from managed.domain.jobs import Job, JobKind, RetryPolicy
from managed.domain.progress import AnswerOutcome, StepPlan
from managed.domain.questions import Question
from managed.domain.runs import run_id_for
from managed.domain.servers import Server
from managed.ports import Emit, RegisterChild
from managed.workflows.world import World


@dataclass(frozen=True)
class Done:
    """The step is done; `result` is its checkpoint (plain JSON, no secrets)."""

    result: Mapping[str, Json] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Wait:
    """The step goes on when the question is answered, or when `limit` is over (times the node's
    time scale, where the caller has applied it).
    """

    question: Question
    limit: timedelta


Outcome = Done | Wait


@dataclass(frozen=True)
class StepContext:
    """What a step sees. `attempt` counts from 1; `answer` is what woke the step, else None.
    `lend_world` gives the world while the lease is held, and raises LeaseLost after.
    """

    job: Job
    lend_world: Callable[[], World]
    now: datetime
    attempt: int
    emit: Emit
    register_child: RegisterChild

    @property
    def world(self) -> World:
        """The world, for the next thing that is done to it: to be asked for anew before each. A
        worker that stood still for a while finds here that the job is another's.
        """
        return self.lend_world()

    @property
    def server(self) -> Server:
        """The server as the database knows it at this moment."""
        return self.world.servers.get(self.job.server_id)

    @property
    def endpoint(self) -> Endpoint:
        """Where SSH answers now: the rescue session while one is open, else the server."""
        return self.world.endpoint(self.job.server_id)

    @property
    def answer(self) -> Mapping[str, Json] | None:
        """The facts that answered this step's question; None before it was asked."""
        if self.job.answer is None or self.timed_out:
            return None
        return self.job.answer

    @property
    def timed_out(self) -> bool:
        """Did this step's question go unanswered for its whole time?"""
        return self.job.answer is not None and (
            self.job.answer.get("outcome") == AnswerOutcome.TIMED_OUT
        )

    def result_of(self, step: str) -> Mapping[str, Json]:
        """The recorded result of an earlier step; EvidenceMissing when there is none."""
        record = self.job.done_step(step)
        if record is None:
            raise EvidenceMissing(f"the step {step} has left no result", step=step)
        return record.result

    def run_id(self, step: str) -> str:
        """The present, or last, detached run of that step; the same in retries and in undos."""
        return run_id_for(self.job.job_id, step, self.job.run_number(step))

    def scaled(self, seconds: float) -> timedelta:
        """A time limit made longer where guests are emulated."""
        return timedelta(seconds=seconds * self.world.time_scale(self.job.server_id))


_USUAL_RETRY = RetryPolicy()

StepFunction = Callable[[StepContext], Outcome]
UndoFunction = Callable[[StepContext], Done | None]
"""What it could not take back it says as warnings."""


@dataclass(frozen=True)
class Step:
    """One idempotent part of a job. The undo is idempotent too and copes with half-done work."""

    name: str
    run: StepFunction
    undo: UndoFunction | None = None
    interruptible: bool = True
    retry: RetryPolicy = _USUAL_RETRY

    @property
    def plan(self) -> StepPlan:
        return StepPlan(self.name, self.interruptible, self.undo is not None)


@dataclass(frozen=True)
class Workflow:
    """What happens to the server, in order. Any change to the steps that a parked job could
    stumble over takes a new `version`; the old one stays until no job needs it.
    """

    kind: JobKind
    version: int
    steps: tuple[Step, ...]
    time_limit: timedelta

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)
