"""Steps that kill the workers that take them up: not for ever."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import Engine as Database

from managed.domain.errors import CommandFailed
from managed.domain.jobs import Job, JobStatus
from managed.domain.progress import MOST_WORKER_DEATHS
from managed.domain.questions import RunEnded
from managed.storage.database import DatabaseUnavailable
from managed.storage.leases import LeasedJobs
from managed.storage.waiting import WaitingJobs
from managed.workflows.engine import RunEnd
from managed.workflows.steps import Done, Outcome, StepContext, Wait
from tests.support.jobs import JobBench, step

MANY = 50


class Killed(BaseException):
    """kill -9 for want of memory: nothing of the try goes on record."""


@pytest.fixture
def bench(database: Database) -> JobBench:
    return JobBench(database)


def kill(_: StepContext) -> None:
    raise Killed


def follow(bench: JobBench, job: Job) -> Job:
    """Workers take the job up until it has ended, each when its predecessor's lease is over."""
    for _ in range(MANY):
        try:
            bench.engine().run(job.job_id)
        except Killed:
            bench.clock.pass_time(seconds=31)
        if (job := bench.queue.job(job.job_id)).status.is_final:
            return job
    raise AssertionError("the job does not end")


def test_a_step_that_kills_worker_after_worker_fails_and_says_so(bench: JobBench) -> None:
    calls: list[str] = []

    def deadly(_: StepContext) -> None:
        calls.append("deadly")
        raise Killed

    bench.workflow(
        step("disk", undo=lambda _: calls.append("undo disk")),
        step("deadly", deadly, undo=lambda _: calls.append("undo deadly")),
    )
    job = follow(bench, bench.submit())
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["detail"]) == (
        "worker-died",
        "the worker died 5 times in this step",
    )
    assert calls == ["deadly"] * 5 + ["undo deadly", "undo disk"]


def test_an_undo_that_kills_worker_after_worker_is_given_up_and_the_others_go_on(
    bench: JobBench,
) -> None:
    undone: list[str] = []

    def fail(_: StepContext) -> None:
        raise CommandFailed("exit 1")

    bench.workflow(
        step("disk", undo=lambda _: undone.append("disk")), step("deadly", fail, undo=kill)
    )
    job = follow(bench, bench.submit())
    assert [s.status for s in job.steps] == ["done", "failed", "undo-failed", "undone"]
    assert job.error is not None
    assert job.error["code"] == "command-failed", "what went wrong first"
    assert job.warnings == ("undo of deadly: the worker died 5 times in this step",)
    assert undone == ["disk"]


def test_each_step_has_deaths_of_its_own(bench: JobBench) -> None:
    deaths = {"first": 4, "second": 4}

    def deadly_for_a_while(name: str) -> None:
        deaths[name] -= 1
        if deaths[name] >= 0:
            raise Killed

    bench.workflow(
        step("first", lambda _: deadly_for_a_while("first")),
        step("second", lambda _: deadly_for_a_while("second")),
    )
    assert follow(bench, bench.submit()).status is JobStatus.SUCCEEDED


class StoreThatRenewsNothing(LeasedJobs):
    """`tried` tells that the heartbeat has tried it."""

    def __init__(self, database: Database, error: Exception) -> None:
        super().__init__(database)
        self.error = error
        self.tried = threading.Event()

    def renew(self, *_: object) -> None:
        self.tried.set()
        raise self.error


def lose_lease(bench: JobBench, store: StoreThatRenewsNothing) -> None:
    """Time passes in a step: the heartbeat cannot renew the lease, and then it is over."""
    store.tried.clear()
    bench.clock.pass_time(seconds=11)
    assert store.tried.wait(20)
    bench.clock.pass_time(seconds=20)


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_a_worker_that_loses_its_lease_in_an_outage_tells_of_no_death(
    bench: JobBench, is_taken_over: bool
) -> None:
    outlived: list[RunEnd] = []
    store = StoreThatRenewsNothing(bench.database, DatabaseUnavailable("it is away"))

    def slow(context: StepContext) -> None:
        if len(outlived) == MOST_WORKER_DEATHS + 1:
            return
        lose_lease(bench, store)
        if is_taken_over:
            other = store.claim(
                context.job.job_id, "worker-2", bench.clock(), timedelta(seconds=30)
            )
            assert other is not None
            assert other[0].worker_deaths == 1

    bench.workflow(step("slow", slow))
    bench.store = store
    job = bench.submit()
    while (end := bench.engine().run(job.job_id)) is not RunEnd.ENDED:
        outlived.append(end)
        left = bench.queue.job(job.job_id)
        assert left.worker_deaths == 0
        if is_taken_over:
            # The other worker gives the job back as one does that is stopped.
            store.release(left)
    each = RunEnd.LEASE_LOST if is_taken_over else RunEnd.RELEASED
    assert outlived == [each] * (MOST_WORKER_DEATHS + 1)
    assert bench.queue.job(job.job_id).status is JobStatus.SUCCEEDED


def test_a_step_in_which_worker_after_worker_stands_still_fails(bench: JobBench) -> None:
    store = StoreThatRenewsNothing(bench.database, RuntimeError("it stood still"))
    bench.workflow(step("still", lambda _: lose_lease(bench, store)))
    bench.store = store
    job = bench.submit()
    for _ in range(MOST_WORKER_DEATHS):
        assert bench.engine().run(job.job_id) is RunEnd.LEASE_LOST
    assert bench.engine().run(job.job_id) is RunEnd.ENDED
    ended = bench.queue.job(job.job_id)
    assert ended.error is not None
    assert ended.error["code"] == "worker-died"


def test_jobs_that_are_given_back_or_wait_tell_of_no_death(bench: JobBench) -> None:
    def ask(context: StepContext) -> Outcome:
        if context.answer is None or context.answer["exit_status"] != 9:
            return Wait(RunEnded("run-1"), timedelta(minutes=10))
        return Done()

    bench.workflow(step("ask", ask))
    job, waiting = bench.submit(), WaitingJobs(bench.database)
    for number in range(10):
        assert bench.engine().run(job.job_id) is RunEnd.WAITING
        bench.clock.pass_time(minutes=5)
        waiting.wake(waiting.questions()[0], {"outcome": "answered", "exit_status": number})
        assert bench.engine(stopping=lambda: True).run(job.job_id) is RunEnd.RELEASED
    assert bench.queue.job(job.job_id).worker_deaths == 0
    assert bench.engine().run(job.job_id) is RunEnd.ENDED
