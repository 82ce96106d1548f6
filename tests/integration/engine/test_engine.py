"""The engine on real databases: order, checkpoints, waiting, retry, cancel, undo, pre-emption."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine as Database

from managed.domain.errors import (
    CommandFailed,
    Conflict,
    NotFound,
    ServerBusy,
    ServerUnreachable,
)
from managed.domain.jobs import Job, JobKind, JobStatus, StepStatus
from managed.domain.questions import RunEnded
from managed.storage.waiting import WaitingJobs
from managed.workflows.engine import RunEnd
from managed.workflows.steps import Done, Outcome, StepContext, Wait
from tests.support.jobs import JobBench, step
from workers.measures import ended_job


@pytest.fixture
def bench(database: Database) -> JobBench:
    return JobBench(database)


def ask(context: StepContext) -> Outcome:
    """A step that waits for a run and hands its answer on."""
    if context.timed_out:
        raise CommandFailed("no answer came")
    if context.answer is None:
        return Wait(RunEnded("run-1"), timedelta(minutes=10))
    return Done({"got": context.answer["exit_status"]})


def test_steps_run_in_order_and_leave_their_results(bench: JobBench) -> None:
    def second(context: StepContext) -> Outcome:
        return Done({"after": context.result_of("first")["number"]})

    bench.workflow(step("first", lambda _: Done({"number": 7})), step("second", second))
    job = bench.submit()
    assert bench.engine().run(job.job_id) is RunEnd.ENDED
    job = bench.queue.job(job.job_id)
    assert job.status is JobStatus.SUCCEEDED
    assert [(s.name, s.status, s.result) for s in job.steps] == [
        ("first", StepStatus.DONE, {"number": 7}),
        ("second", StepStatus.DONE, {"after": 7}),
    ]
    assert bench.event_types(job) == [
        "job_submitted",
        *["step_started", "step_done"] * 2,
        "job_ended",
    ]


def test_the_last_steps_warnings_are_kept_with_those_before(bench: JobBench) -> None:
    bench.workflow(
        step("first", lambda _: Done(warnings=("one",))),
        step("last", lambda _: Done(warnings=("two",))),
    )
    job = bench.submit()
    bench.engine().run(job.job_id)
    assert bench.queue.job(job.job_id).warnings == ("one", "two")
    assert bench.event_types(job)[-3:] == ["warning", "step_done", "job_ended"]


def test_who_counts_jobs_is_told_of_each_once_as_it_is_on_record(bench: JobBench) -> None:
    def fail(_: StepContext) -> None:
        raise CommandFailed("exit 1")

    told: list[Job] = []
    bench.workflow(step("only"))
    bench.workflow(step("disk", undo=lambda _: None), step("boot", fail), kind=JobKind.BACKUP)
    for kind in (JobKind.PATCH, JobKind.BACKUP):
        job = bench.submit(kind)
        bench.clock.pass_time(seconds=5)
        for _ in range(2):
            bench.engine(ended=told.append).run(job.job_id)
        assert ended_job(told[-1]) == ended_job(bench.queue.job(job.job_id))
    assert [(job.kind, job.status) for job in told] == [
        (JobKind.PATCH, JobStatus.SUCCEEDED),
        (JobKind.BACKUP, JobStatus.FAILED),
    ]


def test_second_delivery_of_a_message_changes_nothing(bench: JobBench) -> None:
    runs: list[int] = []
    bench.workflow(step("once", lambda c: runs.append(c.attempt)))
    job = bench.submit()
    assert bench.engine().run(job.job_id) is RunEnd.ENDED
    assert bench.engine("worker-2").run(job.job_id) is RunEnd.NOT_CLAIMED
    assert runs == [1]


def test_lost_message_is_sent_again_by_the_clock(bench: JobBench) -> None:
    bench.workflow(step("only"))
    job = bench.submit()
    resend = timedelta(seconds=60)
    assert bench.queue.to_send(bench.clock(), resend) == [job.job_id]
    bench.queue.mark_sent([job.job_id], bench.clock())
    assert bench.queue.to_send(bench.clock(), resend) == []
    bench.clock.pass_time(seconds=61)
    assert bench.queue.to_send(bench.clock(), resend) == [job.job_id]


def test_second_changing_job_on_a_busy_server_is_refused_and_nothing_is_stored(
    bench: JobBench,
) -> None:
    first = bench.submit()
    with pytest.raises(ServerBusy) as refusal:
        bench.submit(JobKind.BACKUP)
    assert refusal.value.details["job_id"] == first.job_id
    assert [job.job_id for job in bench.queue.find()] == [first.job_id]


def test_unknown_server_is_refused(bench: JobBench) -> None:
    with pytest.raises(NotFound):
        bench.submit(server_id="nobody")


def test_waiting_job_is_woken_by_its_answer_and_holds_no_lease(bench: JobBench) -> None:
    bench.workflow(step("ask", ask), step("after"))
    job = bench.submit()
    assert bench.engine().run(job.job_id) is RunEnd.WAITING
    job = bench.queue.job(job.job_id)
    assert (job.status, job.lease) == (JobStatus.WAITING, None)
    assert bench.engine().run(job.job_id) is RunEnd.NOT_CLAIMED
    waiting = WaitingJobs(bench.database)
    (asked,) = waiting.questions()
    assert waiting.wake(asked, {"outcome": "answered", "exit_status": 0})
    assert not waiting.wake(asked, {"outcome": "answered", "exit_status": 1}), "woken once"
    assert bench.engine().run(job.job_id) is RunEnd.ENDED
    assert bench.queue.job(job.job_id).done_step("ask").result == {"got": 0}  # type: ignore[union-attr]


def test_answer_survives_a_worker_that_dies_with_it(bench: JobBench) -> None:
    bench.workflow(step("ask", ask))
    job = bench.submit()
    bench.engine().run(job.job_id)
    waiting = WaitingJobs(bench.database)
    waiting.wake(waiting.questions()[0], {"outcome": "answered", "exit_status": 3})
    assert bench.store.claim(job.job_id, "dies", bench.clock(), timedelta(seconds=30))
    bench.clock.pass_time(seconds=31)
    assert bench.engine("worker-2").run(job.job_id) is RunEnd.ENDED
    done = bench.queue.job(job.job_id).done_step("ask")
    assert done is not None
    assert done.result == {"got": 3}


def test_question_without_answer_times_out_into_a_failure(bench: JobBench) -> None:
    bench.workflow(step("ask", ask))
    job = bench.submit()
    bench.engine().run(job.job_id)
    waiting = WaitingJobs(bench.database)
    assert waiting.wake(waiting.questions()[0], {"outcome": "timed-out"})
    bench.engine().run(job.job_id)
    ended = bench.queue.job(job.job_id)
    assert ended.status is JobStatus.FAILED
    assert ended.error is not None
    assert ended.error["detail"] == "no answer came"


def test_progress_of_a_wait_moves_offset_and_events_together_and_once(bench: JobBench) -> None:
    bench.workflow(step("ask", ask))
    job = bench.submit()
    bench.engine().run(job.job_id)
    waiting = WaitingJobs(bench.database)
    (asked,) = waiting.questions()
    from managed.domain.events import NewEvent

    line = [NewEvent(bench.clock(), "run_output", {"line": "Reading package lists"})]
    assert waiting.note(asked, RunEnded("run-1", offset=22), line, bench.clock())
    assert not waiting.note(asked, RunEnded("run-1", offset=22), line, bench.clock())
    (now,) = waiting.questions()
    assert now.question == RunEnded("run-1", offset=22)
    assert bench.event_types(job).count("run_output") == 1


def test_expired_lease_is_taken_over_and_the_first_holder_can_write_nothing(
    bench: JobBench, tmp_path: Path
) -> None:
    def slow(context: StepContext) -> None:
        if context.attempt == 1 and not (tmp_path / "taken").exists():
            (tmp_path / "taken").touch()
            bench.clock.pass_time(seconds=31)
            assert bench.engine("worker-2").run(context.job.job_id) is RunEnd.ENDED

    bench.workflow(step("slow", slow))
    job = bench.submit()
    assert bench.engine("worker-1").run(job.job_id) is RunEnd.LEASE_LOST
    ended = bench.queue.job(job.job_id)
    assert ended.status is JobStatus.SUCCEEDED
    assert len(ended.steps) == 1
    assert bench.event_types(job).count("step_done") == 1


def test_successor_ends_the_child_that_a_dead_worker_left(bench: JobBench) -> None:
    bench.workflow(step("play"))
    job = bench.submit()
    claimed = bench.store.claim(job.job_id, "dies", bench.clock(), timedelta(seconds=30))
    assert claimed is not None
    bench.store.record_child(claimed[0], {"group": 4711})
    bench.clock.pass_time(seconds=31)
    assert bench.engine("worker-2").run(job.job_id) is RunEnd.ENDED
    assert bench.children.ended == [{"group": 4711}]


def test_retryable_error_is_tried_again_later_with_a_new_attempt(bench: JobBench) -> None:
    attempts: list[int] = []

    def flaky(context: StepContext) -> None:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise ServerUnreachable("no route to host")

    bench.workflow(step("flaky", flaky))
    job = bench.submit()
    assert bench.engine().run(job.job_id) is RunEnd.LATER
    assert bench.engine().run(job.job_id) is RunEnd.NOT_CLAIMED, "not due yet"
    bench.clock.pass_time(seconds=3)
    assert bench.engine().run(job.job_id) is RunEnd.LATER
    bench.clock.pass_time(seconds=10)
    assert bench.engine().run(job.job_id) is RunEnd.ENDED
    assert attempts == [1, 2, 3]
    assert bench.queue.job(job.job_id).status is JobStatus.SUCCEEDED


def test_failed_job_undoes_what_was_done_and_begun_last_first(bench: JobBench) -> None:
    undone: list[str] = []

    def fail(_: StepContext) -> None:
        raise CommandFailed("exit 1")

    bench.workflow(
        step("disk", undo=lambda _: undone.append("disk")),
        step("note"),
        step("boot", fail, undo=lambda _: undone.append("boot")),
        step("never", undo=lambda _: undone.append("never")),
    )
    job = bench.submit()
    bench.engine().run(job.job_id)
    ended = bench.queue.job(job.job_id)
    assert undone == ["boot", "disk"]
    assert ended.status is JobStatus.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "command-failed"
    assert [s.status for s in ended.steps] == ["done", "done", "failed", "undone", "undone"]
    types = bench.event_types(job)
    assert types.count("undo_begun") == 1
    assert types.index("step_failed") < types.index("undo_begun") < types.index("undo_started")
    assert not ended.holds_server


def test_undo_that_fails_is_said_and_does_not_stop_the_others(bench: JobBench) -> None:
    undone: list[str] = []

    def stuck(_: StepContext) -> None:
        raise CommandFailed("the disk is busy")

    bench.workflow(
        step("first", undo=lambda _: undone.append("first")),
        step("second", undo=stuck),
        step("third", stuck),
    )
    job = bench.submit()
    bench.engine().run(job.job_id)
    ended = bench.queue.job(job.job_id)
    assert undone == ["first"]
    assert ended.warnings == ("undo of second: the disk is busy",)
    assert [s.status for s in ended.steps][-2:] == ["undo-failed", "undone"]


def test_defect_in_a_step_fails_the_job_without_showing_values(bench: JobBench) -> None:
    def defect(_: StepContext) -> None:
        raise KeyError("hunter2")

    bench.workflow(step("broken", defect))
    job = bench.submit()
    bench.engine().run(job.job_id)
    error = bench.queue.job(job.job_id).error
    assert error is not None
    assert error["code"] == "internal-error"
    assert "hunter2" not in str(error)


def test_cancel_wakes_an_interruptible_wait_and_undoes(bench: JobBench) -> None:
    undone: list[str] = []
    bench.workflow(step("ask", ask, undo=lambda _: undone.append("ask")))
    job = bench.submit()
    bench.engine().run(job.job_id)
    bench.queue.cancel(job.job_id, "customer changed their mind", bench.clock())
    assert bench.engine().run(job.job_id) is RunEnd.ENDED
    ended = bench.queue.job(job.job_id)
    assert ended.status is JobStatus.CANCELLED
    assert undone == ["ask"]
    assert bench.event_types(job).count("undo_begun") == 1
    with pytest.raises(Conflict):
        bench.queue.cancel(job.job_id, "again", bench.clock())


def test_cancel_lets_an_uninterruptible_step_end_first(bench: JobBench) -> None:
    bench.workflow(step("dpkg", ask, interruptible=False), step("after"))
    job = bench.submit()
    bench.engine().run(job.job_id)
    bench.queue.cancel(job.job_id, "stop", bench.clock())
    assert bench.queue.job(job.job_id).status is JobStatus.WAITING, "dpkg is left alone"
    waiting = WaitingJobs(bench.database)
    waiting.wake(waiting.questions()[0], {"outcome": "answered", "exit_status": 0})
    bench.engine().run(job.job_id)
    ended = bench.queue.job(job.job_id)
    assert ended.status is JobStatus.CANCELLED
    assert ended.done_step("dpkg") is not None
    assert ended.done_step("after") is None


def test_deadline_ends_a_job_between_steps(bench: JobBench) -> None:
    job = bench.submit()

    def take_long(_: StepContext) -> None:
        # Once: what takes over the job before this step is recorded does it again.
        if bench.clock() < job.deadline:
            bench.clock.pass_time(hours=2)

    bench.workflow(step("long", take_long), step("after"))
    engine = bench.engine()
    # The manual clock jumps past the lease too; the job is then taken up again, when the lease is
    # over that the heartbeat may have renewed at the last moment.
    assert engine.run(job.job_id) in (RunEnd.ENDED, RunEnd.LEASE_LOST)
    bench.clock.pass_time(minutes=1)
    engine.run(job.job_id)
    ended = bench.queue.job(job.job_id)
    assert ended.status is JobStatus.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "deadline-exceeded"
    assert bench.event_types(job).count("undo_begun") == 1


def test_rescue_goes_before_a_patch_at_its_next_safe_point(bench: JobBench) -> None:
    bench.workflow(step("ask", ask))
    bench.workflow(step("rescue"), kind=JobKind.RESCUE)
    patch = bench.submit()
    bench.engine().run(patch.job_id)
    rescue = bench.submit(JobKind.RESCUE)
    assert bench.engine().run(rescue.job_id) is RunEnd.NOT_CLAIMED, "the patch holds the server"
    bench.engine().run(patch.job_id)
    assert bench.queue.job(patch.job_id).status is JobStatus.CANCELLED
    assert bench.sent == [rescue.job_id]
    assert bench.engine().run(rescue.job_id) is RunEnd.ENDED
    assert bench.queue.job(rescue.job_id).status is JobStatus.SUCCEEDED


def test_patch_does_not_go_before_a_rescue(bench: JobBench) -> None:
    bench.submit(JobKind.RESCUE)
    with pytest.raises(ServerBusy):
        bench.submit(JobKind.PATCH)


def test_stopping_worker_gives_the_job_back_between_steps(bench: JobBench) -> None:
    stopping: list[bool] = []
    bench.workflow(step("first", lambda _: stopping.append(True)), step("second"))
    job = bench.submit()
    assert bench.engine(stopping=lambda: bool(stopping)).run(job.job_id) is RunEnd.RELEASED
    assert bench.queue.job(job.job_id).status is JobStatus.QUEUED
    assert bench.engine("worker-2").run(job.job_id) is RunEnd.ENDED
    assert len(bench.queue.job(job.job_id).steps) == 2


def test_job_of_a_newer_deployment_is_left_as_it_is_for_a_newer_worker(bench: JobBench) -> None:
    newer = (step("ask", ask),)
    bench.workflow(*newer, version=2)
    job = bench.submit(version=2)
    bench.engine().run(job.job_id)
    waiting = WaitingJobs(bench.database)
    waiting.wake(waiting.questions()[0], {"outcome": "answered", "exit_status": 0})
    before = bench.queue.job(job.job_id)
    del bench.workflows[JobKind.PATCH, 2]
    bench.workflow(step("only"))
    assert bench.engine("old worker").run(job.job_id) is RunEnd.LATER
    after = bench.queue.job(job.job_id)
    assert after.status is JobStatus.QUEUED
    assert (after.answer, after.step_attempt) == (before.answer, 1)
    assert after.started_step == "ask"
    assert bench.engine("old worker").run(job.job_id) is RunEnd.NOT_CLAIMED, "not at once again"
    bench.clock.pass_time(seconds=31)
    bench.workflow(*newer, version=2)
    assert bench.engine("new worker").run(job.job_id) is RunEnd.ENDED
    assert bench.queue.job(job.job_id).status is JobStatus.SUCCEEDED


def test_job_of_a_forgotten_version_fails_and_says_so(bench: JobBench) -> None:
    bench.workflow(step("only"), version=2)
    job = bench.submit(version=1)
    assert bench.engine().run(job.job_id) is RunEnd.ENDED
    error = bench.queue.job(job.job_id).error
    assert error is not None
    assert error["code"] == "unknown-workflow-version"


def test_events_are_numbered_without_gaps(bench: JobBench) -> None:
    def chatty(context: StepContext) -> None:
        for number in range(1200):
            context.emit("line", {"number": number})

    bench.workflow(step("chatty", chatty))
    job = bench.submit()
    bench.engine().run(job.job_id)
    seen = [*bench.events.after(job.job_id, 0, limit=5000)]
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [e.data["number"] for e in seen if e.type == "line"] == list(range(1200))
