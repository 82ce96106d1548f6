"""What a step needs is away for minutes: the job waits it out, also when it takes changes back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine as Database

from managed.domain.errors import CommandFailed, HypervisorUnavailable
from managed.domain.jobs import Job, JobStatus, RetryPolicy
from managed.domain.questions import RunEnded
from managed.storage.waiting import WaitingJobs
from managed.workflows.engine import RunEnd
from managed.workflows.steps import Done, Outcome, StepContext, Wait
from tests.support.jobs import START, JobBench, step

MANY = 100
USUAL = RetryPolicy()


@pytest.fixture
def bench(database: Database) -> JobBench:
    return JobBench(database)


def away_for(bench: JobBench, **time: float) -> Callable[[], None]:
    """Something that does not answer for this time from the first call on."""
    back: list[float] = []

    def ask() -> None:
        now = bench.clock.stopwatch()
        if not back:
            back.append(now + timedelta(**time).total_seconds())
        if now < back[0]:
            raise HypervisorUnavailable("libvirtd restarts")

    return ask


def follow(bench: JobBench, job: Job) -> Job:
    """Work on the job, each try when it is due, until it waits or has ended."""
    for _ in range(MANY):
        if bench.engine().run(job.job_id) is not RunEnd.LATER:
            return bench.queue.job(job.job_id)
        due = bench.queue.job(job.job_id).next_attempt_at
        assert due is not None
        bench.clock.pass_time(seconds=(due - bench.clock()).total_seconds())
    raise AssertionError("the tries do not end")


def test_a_step_waits_ten_minutes_of_outage_out(bench: JobBench) -> None:
    node = away_for(bench, minutes=10)
    bench.workflow(step("boot", lambda _: node(), retry=USUAL))
    assert follow(bench, bench.submit()).status is JobStatus.SUCCEEDED


def test_so_does_an_undo(bench: JobBench) -> None:
    node = away_for(bench, minutes=10)

    def fail(_: StepContext) -> None:
        raise CommandFailed("exit 1")

    bench.workflow(step("boot", fail, undo=lambda _: node(), retry=USUAL))
    job = follow(bench, bench.submit())
    assert [s.status for s in job.steps] == ["failed", "undone"]


def test_an_outage_without_end_fails_the_job(bench: JobBench) -> None:
    node = away_for(bench, hours=10)
    bench.workflow(step("boot", lambda _: node(), retry=USUAL))
    job = follow(bench, bench.submit())
    assert job.error is not None
    assert job.error["code"] == "hypervisor-unavailable"
    assert timedelta(minutes=15) <= bench.clock() - START <= timedelta(minutes=16)


def test_an_outage_after_a_wait_has_all_its_time_again(bench: JobBench) -> None:
    before, after = away_for(bench, minutes=10), away_for(bench, minutes=10)

    def ask(context: StepContext) -> Outcome:
        if context.answer is None:
            before()
            return Wait(RunEnded("run-1"), timedelta(minutes=30))
        after()
        return Done()

    bench.workflow(step("ask", ask, retry=USUAL))
    job = follow(bench, bench.submit())
    assert job.status is JobStatus.WAITING
    waiting = WaitingJobs(bench.database)
    assert waiting.wake(waiting.questions()[0], {"outcome": "answered", "exit_status": 0})
    assert follow(bench, job).status is JobStatus.SUCCEEDED
