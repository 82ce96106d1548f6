"""Retry, pre-emption and the next action of a job."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from managed.domain.errors import (
    CommandFailed,
    HostKeyChanged,
    HypervisorUnavailable,
    Json,
    ManagedError,
    ObjectStoreUnavailable,
    RunLost,
    ServerUnreachable,
    StillRunning,
    UnknownOutcome,
)
from managed.domain.jobs import (
    GiveUp,
    Job,
    JobKind,
    JobStatus,
    Preemption,
    RetryPolicy,
    Silence,
    StepResult,
    StepStatus,
    TryAgain,
    preemption,
    retry_decision,
)
from managed.domain.progress import (
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
)
from managed.storage.database import DatabaseUnavailable
from managed.workflows.registry import current_workflow

NOW = datetime(2026, 10, 25, 2, 30, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
POLICY = RetryPolicy(attempts=3)
PLAN = (
    StepPlan("disk", has_undo=True),
    StepPlan("dpkg", interruptible=False),
    StepPlan("boot", has_undo=True),
)
SILENT, LOST = ServerUnreachable("silent"), RunLost("cut off")


def job(**changes: Any) -> Job:
    plain = Job(
        job_id="job",
        server_id="server",
        kind=JobKind.PATCH,
        workflow_version=1,
        status=JobStatus.RUNNING,
        parameters={},
        created_at=NOW,
        deadline=LATER,
    )
    return replace(plain, **changes)


def record(name: str, status: StepStatus = StepStatus.DONE) -> StepResult:
    return StepResult(name, status, 1, NOW, NOW)


def decided(error: ManagedError, tried: Job, deadline: datetime | None = LATER) -> object:
    return retry_decision(POLICY, error, tried, NOW, NOW, deadline)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 4), (4, 16), (5, 30), (99, 30)])
def test_retries_wait_twice_as_long_each_time_up_to_a_limit(attempt: int, seconds: int) -> None:
    tried = job(step_attempt=attempt, outage_tries=attempt - 1)
    assert decided(SILENT, tried) == TryAgain(NOW + timedelta(seconds=seconds))


def test_an_error_may_ask_for_a_longer_pause() -> None:
    error = ServerUnreachable("booting", retry_after=90)
    assert decided(error, job()) == TryAgain(NOW + timedelta(seconds=90))


def test_what_retrying_cannot_mend_is_given_up_at_once() -> None:
    for error in (HostKeyChanged("another key"), CommandFailed("exit 1")):
        assert isinstance(decided(error, job()), GiveUp)


def test_the_deadline_ends_retries() -> None:
    assert isinstance(decided(SILENT, job(), NOW + timedelta(seconds=1)), GiveUp)


def tries_last(error: ManagedError, tried: Job, policy: RetryPolicy = POLICY) -> timedelta:
    """How long the tries of a step go on that always fails with this error from now on."""
    now = NOW
    while isinstance(decision := retry_decision(policy, error, tried, now, now, None), TryAgain):
        tried = for_next_try(tried, error, now=now, at=decision.at)
        now = decision.at
    return now - NOW


OUTAGES: list[ManagedError] = [
    ServerUnreachable("silent"),
    HypervisorUnavailable("libvirtd restarts"),
    ObjectStoreUnavailable("no route"),
    DatabaseUnavailable("it restarts"),
]


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: error.code)
def test_what_does_not_answer_is_waited_for_a_quarter_of_an_hour(error: ManagedError) -> None:
    assert timedelta(minutes=15) <= tries_last(error, job()) <= timedelta(minutes=16)


def test_what_does_its_work_anew_has_few_attempts_and_outages_use_up_none() -> None:
    assert tries_last(LOST, job()) == timedelta(seconds=2 + 4)
    after_an_outage = job(step_attempt=21, outage_tries=20, outage_since=NOW)
    assert isinstance(decided(LOST, after_an_outage), TryAgain)
    assert for_next_try(after_an_outage, LOST, now=NOW, at=LATER).outage_since is None
    assert isinstance(decided(LOST, replace(after_an_outage, step_attempt=23)), GiveUp)


def test_who_waits_for_a_job_to_stop_waits_a_minute_for_its_silent_server() -> None:
    """A rescue, say, that is to bring that server back; a node that is away it needs itself."""
    stopping = job(verdict=JobStatus.CANCELLED, cancel_requested="a rescue job goes before it")
    assert tries_last(SILENT, stopping) <= timedelta(minutes=2)
    assert tries_last(HypervisorUnavailable("away"), stopping) >= timedelta(minutes=15)
    apply = next(s for s in current_workflow(JobKind.HARDEN).steps if s.name == "apply")
    longest_trial = timedelta(minutes=12)
    assert tries_last(SILENT, stopping, apply.retry) > longest_trial, "the firewall lets us in"


def test_a_step_that_ends_worker_after_worker_is_not_begun_again() -> None:
    assert death_of_workers(job(started_step="disk", worker_deaths=4)) is None
    error = death_of_workers(job(started_step="disk", worker_deaths=5))
    assert error is not None
    assert (error.message, error.retryable) == ("the worker died 5 times in this step", False)


@pytest.mark.parametrize(
    ("holder", "asked", "answer"),
    [
        (JobKind.PATCH, JobKind.RESCUE, Preemption.AT_SAFE_POINT),
        (JobKind.BACKUP, JobKind.RESTORE, Preemption.AT_SAFE_POINT),
        (JobKind.PATCH, JobKind.POWER, Preemption.REFUSE),
        (JobKind.PATCH, JobKind.BACKUP, Preemption.REFUSE),
        (JobKind.RESCUE, JobKind.RESTORE, Preemption.REFUSE),
        (JobKind.PATCH, JobKind.RESTORE_FILES, Preemption.REFUSE),
        (JobKind.RESTORE_FILES, JobKind.RESCUE, Preemption.AT_SAFE_POINT),
        (JobKind.RESCUE, JobKind.RESCUE, Preemption.REFUSE),
        (JobKind.DELETE, JobKind.RESCUE, Preemption.REFUSE),
    ],
)
def test_only_what_brings_a_server_back_goes_before_others(
    holder: JobKind, asked: JobKind, answer: Preemption
) -> None:
    assert preemption(job(kind=holder, holds_server=True), asked) is answer


def test_a_job_that_takes_its_changes_back_is_not_pushed_aside() -> None:
    undoing = job(kind=JobKind.PATCH, holds_server=True, verdict=JobStatus.FAILED)
    assert preemption(undoing, JobKind.RESCUE) is Preemption.REFUSE


def test_a_delete_that_has_not_begun_gives_way() -> None:
    in_line = job(kind=JobKind.DELETE, holds_server=False)
    assert preemption(in_line, JobKind.RESCUE) is Preemption.AT_SAFE_POINT


def test_only_time_in_which_a_server_was_asked_counts_as_its_silence() -> None:
    limit, silence = timedelta(minutes=5), Silence()
    for minute in range(5):
        silence = silence.after_failed_ask(NOW + timedelta(minutes=minute))
    assert not silence.is_safe_point(limit)
    assert silence.after_failed_ask(NOW + timedelta(minutes=5)).is_safe_point(limit)
    day_later = Silence().after_failed_ask(NOW).after_failed_ask(NOW + timedelta(days=1))
    assert not day_later.is_safe_point(limit), "nobody asked all day"


def test_the_first_step_without_a_record_is_next() -> None:
    assert next_action(job(), PLAN, NOW) == RunStep("disk")
    assert next_action(job(steps=(record("disk"),)), PLAN, NOW) == RunStep("dpkg")
    done = tuple(record(step.name) for step in PLAN)
    assert next_action(job(steps=done), PLAN, NOW) == Finish(JobStatus.SUCCEEDED)


def test_cancel_and_deadline_take_hold_between_steps() -> None:
    cancelled = next_action(job(cancel_requested="by anna"), PLAN, NOW)
    assert isinstance(cancelled, BeginUndo)
    assert cancelled.verdict is JobStatus.CANCELLED
    late = next_action(job(), PLAN, LATER)
    assert isinstance(late, BeginUndo)
    assert late.verdict is JobStatus.FAILED


def test_a_begun_uninterruptible_step_goes_on_whoever_cancels() -> None:
    working = job(steps=(record("disk"),), started_step="dpkg", cancel_requested="by anna")
    assert next_action(working, PLAN, NOW) == RunStep("dpkg")
    answered = replace(working, answer={"outcome": "answered"})
    assert next_action(answered, PLAN, NOW) == RunStep("dpkg")


def test_a_hanging_server_frees_even_an_uninterruptible_step() -> None:
    hanging = job(
        steps=(record("disk"),),
        started_step="dpkg",
        cancel_requested="a rescue job goes before it",
        answer={"outcome": "interrupted"},
    )
    assert isinstance(next_action(hanging, PLAN, NOW), BeginUndo)


@pytest.mark.parametrize("changes", [{"cancel_requested": "by anna"}, {"deadline": NOW}])
def test_a_wait_that_ran_out_of_time_is_a_safe_point(changes: dict[str, Any]) -> None:
    late = job(started_step="disk", answer={"outcome": "timed-out"}, **changes)
    assert isinstance(next_action(late, PLAN, NOW), BeginUndo)
    in_dpkg = replace(late, steps=(record("disk"),), started_step="dpkg")
    assert next_action(in_dpkg, PLAN, NOW) == RunStep("dpkg")


def test_undo_goes_backwards_over_what_was_done_or_begun_and_then_ends() -> None:
    failed = (record("disk"), record("dpkg"), record("boot", StepStatus.FAILED))
    undoing = job(steps=failed, verdict=JobStatus.FAILED)
    assert next_action(undoing, PLAN, NOW) == UndoStep("boot")
    undoing = replace(undoing, steps=(*failed, record("boot", StepStatus.UNDO_FAILED)))
    assert next_action(undoing, PLAN, NOW) == UndoStep("disk")
    undoing = replace(undoing, steps=(*undoing.steps, record("disk", StepStatus.UNDONE)))
    assert next_action(undoing, PLAN, NOW) == Finish(JobStatus.FAILED)


CALM, DPKG = StepPlan("calm"), StepPlan("dpkg", interruptible=False)


@pytest.mark.parametrize(
    ("plan", "error", "wish_to_stop", "tried_again"),
    [
        (CALM, SILENT, "", True),
        (CALM, LOST, "", True),
        (CALM, UnknownOutcome("the playbook's time is over"), "", True),
        (CALM, CommandFailed("exit 1"), "", False),
        (DPKG, StillRunning("it works on"), "", False),
        # somebody waits for the job to stop
        (CALM, SILENT, "a rescue job goes before it", False),
        (CALM, LOST, "a rescue job goes before it", False),
        (DPKG, LOST, "a rescue job goes before it", False),
        (DPKG, SILENT, "a rescue job goes before it", True),
        (DPKG, StillRunning("it works on"), "a rescue job goes before it", False),
    ],
)
def test_a_job_that_is_to_stop_begins_nothing_anew(
    plan: StepPlan, error: ManagedError, wish_to_stop: str, tried_again: bool
) -> None:
    stopping = job(cancel_requested=wish_to_stop)
    decision = after_error(stopping, plan, POLICY, error, began=NOW, now=NOW)
    assert isinstance(decision, TryAgain) is tried_again


def test_an_undo_is_tried_past_the_deadline_and_past_a_cancel() -> None:
    undoing = job(verdict=JobStatus.CANCELLED, cancel_requested="by anna")
    late = LATER + timedelta(hours=1)
    assert isinstance(after_error(undoing, CALM, POLICY, SILENT, began=late, now=late), TryAgain)
    used_up = replace(undoing, outage_since=NOW)
    assert isinstance(after_error(used_up, CALM, POLICY, SILENT, began=late, now=late), GiveUp)


def test_what_more_tries_could_have_mended_is_cancelled_and_the_rest_failed() -> None:
    stopping, failure = job(cancel_requested="by anna"), CommandFailed("exit 1")
    assert verdict_after(stopping, CALM, SILENT)[0] is JobStatus.CANCELLED
    assert verdict_after(stopping, CALM, failure) == (JobStatus.FAILED, failure)
    assert verdict_after(job(), CALM, SILENT) == (JobStatus.FAILED, SILENT)


def test_an_uninterruptible_step_whose_tries_are_used_up_has_failed_and_was_not_cancelled() -> None:
    stopping = job(cancel_requested="by anna")
    assert verdict_after(stopping, DPKG, SILENT) == (JobStatus.FAILED, SILENT)
    assert verdict_after(stopping, DPKG, LOST)[0] is JobStatus.CANCELLED


def answer(outcome: str) -> dict[str, Json]:
    return {"outcome": outcome, "state": "finished"}


@pytest.mark.parametrize(
    ("came", "error", "kept", "number"),
    [
        (answer("answered"), SILENT, True, 1),
        (answer("timed-out"), SILENT, False, 1),
        (None, SILENT, False, 1),
        (None, UnknownOutcome("the playbook's time is over"), False, 1),
        (answer("answered"), LOST, False, 2),
        (answer("timed-out"), LOST, False, 2),
    ],
)
def test_only_a_lost_run_gets_a_successor_and_a_true_answer_is_kept(
    came: dict[str, Json] | None, error: ManagedError, kept: bool, number: int
) -> None:
    waiting = for_next_try(job(started_step="take", answer=came), error, now=NOW, at=LATER)
    assert waiting.answer == (came if kept else None)
    assert waiting.run_number("take") == number
    assert waiting.run_number("other") == 1
    assert (waiting.step_attempt, waiting.next_attempt_at) == (2, LATER)
