"""One holder at a time: of many claims one wins, and who has lost a lease can write nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import select

from managed.domain.errors import LeaseLost
from managed.domain.events import NewEvent
from managed.domain.jobs import Job, JobStatus, StepResult, StepStatus
from managed.domain.questions import TimePassed
from managed.storage.leases import LeasedJobs
from managed.storage.tables import events, job_steps, jobs
from managed.workflows.engine import RunEnd
from managed.workflows.steps import StepContext
from tests.support.jobs import START, JobBench, step
from tests.support.waiting import wait_until

LEASE = timedelta(seconds=30)
LATER = START + timedelta(hours=1)
DONE = StepResult("first", StepStatus.DONE, 1, START, START)

WRITES: dict[str, Callable[[LeasedJobs, Job], object]] = {
    "renew": lambda store, job: store.renew(job, LATER, LEASE),
    "release": lambda store, job: store.release(job),
    "reread": lambda store, job: store.reread(job),
    "start the next step": lambda store, job: store.start_step(job, "second", LATER),
    "start the same step": lambda store, job: store.start_step(job, "first", LATER),
    "record_child": lambda store, job: store.record_child(job, {"group": 4711}),
    "record_step": lambda store, job: store.record_step(job, DONE, ["odd"]),
    "retry_step": lambda store, job: store.retry_step(replace(job, step_attempt=7)),
    "park": lambda store, job: store.park(job, TimePassed(), LATER, interruptible=True, now=LATER),
    "begin_undo": lambda store, job: store.begin_undo(
        job, JobStatus.FAILED, {"code": "odd"}, replace(DONE, status=StepStatus.FAILED), LATER
    ),
    "finish": lambda store, job: store.finish(job, JobStatus.FAILED, LATER),
    "finish with the last step": lambda store, job: store.finish(
        job, JobStatus.SUCCEEDED, LATER, DONE, ["odd"]
    ),
    "append_events": lambda store, job: store.append_events(job, [NewEvent(LATER, "odd", {})]),
}


@pytest.fixture
def bench(database: Database) -> JobBench:
    return JobBench(database)


def claim(bench: JobBench, job: Job, owner: str) -> Job:
    found = bench.store.claim(job.job_id, owner, bench.clock(), LEASE)
    assert found is not None
    return found[0]


def everything(bench: JobBench) -> Sequence[Any]:
    with bench.database.connect() as connection:
        return [connection.execute(select(table)).all() for table in (jobs, job_steps, events)]


@pytest.mark.parametrize("successor", ["worker-1", "worker-2"])
@pytest.mark.parametrize("write", WRITES)
def test_who_was_taken_over_writes_nothing_while_the_successor_works(
    bench: JobBench, write: str, successor: str
) -> None:
    """Also when both have the same name: a process that was restarted, say."""
    first = bench.store.start_step(claim(bench, bench.submit(), "worker-1"), "first", START)
    bench.clock.pass_time(seconds=31)
    second = claim(bench, first, successor)
    before = everything(bench)
    with pytest.raises(LeaseLost):
        WRITES[write](bench.store, first)
    assert everything(bench) == before
    WRITES[write](bench.store, second)


@pytest.mark.parametrize("write", WRITES)
def test_who_holds_no_lease_writes_nothing(bench: JobBench, write: str) -> None:
    job = bench.submit()
    before = everything(bench)
    with pytest.raises(LeaseLost):
        WRITES[write](bench.store, job)
    assert everything(bench) == before


def test_a_second_delivery_while_the_first_is_at_work_changes_nothing(bench: JobBench) -> None:
    runs: list[int] = []
    ends: list[RunEnd] = []

    def work(context: StepContext) -> None:
        runs.append(context.attempt)
        before = everything(bench)
        bench.clock.pass_time(seconds=5)
        ends.append(bench.engine("worker-2").run(context.job.job_id))
        assert everything(bench)[0] == before[0]

    bench.workflow(step("work", work))
    job = bench.submit()
    assert bench.engine("worker-1").run(job.job_id) is RunEnd.ENDED
    assert (runs, ends) == ([1], [RunEnd.NOT_CLAIMED])
    assert bench.queue.job(job.job_id).status is JobStatus.SUCCEEDED


def test_of_many_deliveries_at_once_one_does_the_work(bench: JobBench) -> None:
    workers = 8
    at_once = threading.Barrier(workers)
    runs: list[int] = []
    refused: list[RunEnd] = []

    def work(context: StepContext) -> None:
        runs.append(context.attempt)
        wait_until(lambda: len(refused) == workers - 1, timeout=60, what="the others are refused")

    bench.workflow(step("work", work))
    job = bench.submit()

    def deliver(number: int) -> RunEnd:
        at_once.wait(60)
        end = bench.engine(f"worker-{number}").run(job.job_id)
        if end is RunEnd.NOT_CLAIMED:
            refused.append(end)
        return end

    with ThreadPoolExecutor(workers) as threads:
        ends = sorted(threads.map(deliver, range(workers)))
    assert ends == [RunEnd.ENDED] + [RunEnd.NOT_CLAIMED] * (workers - 1)
    assert runs == [1]
