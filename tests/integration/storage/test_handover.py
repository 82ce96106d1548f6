"""Who gets a server next, also when two transactions decide it at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event, text, update

from managed.domain.jobs import Job, JobKind, JobStatus
from managed.storage.database import open_database, writing
from managed.storage.job_queue import JobQueue, NewJob
from managed.storage.leases import LeasedJobs
from managed.storage.tables import jobs
from managed.workflows.engine import RunEnd
from tests.support.jobs import JobBench, step
from tests.support.waiting import wait_until

LEASE = timedelta(seconds=30)
RESEND = timedelta(seconds=60)


@pytest.fixture
def bench(database: Database) -> JobBench:
    bench = JobBench(database)
    bench.workflow(step("rescue"), kind=JobKind.RESCUE)
    return bench


def claimed(bench: JobBench, job: Job) -> Job:
    found = bench.store.claim(job.job_id, "worker-1", bench.clock(), LEASE)
    assert found is not None
    return found[0]


@contextmanager
def held(database: Database, moment: str) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A transaction on this engine waits in the middle: the first event says that it does, the
    second lets it go on.
    """
    reached, go_on = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        reached.set()
        assert go_on.wait(60)

    def hold_after_update(_: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("UPDATE jobs"):
            hold()

    name, action = {
        "before its commit": ("commit", hold),
        "with a job changed": ("after_cursor_execute", hold_after_update),
    }[moment]
    event.listen(database, name, action)
    try:
        yield reached, go_on
    finally:
        go_on.set()
        event.remove(database, name, action)


MOMENTS = pytest.mark.parametrize("moment", ["before its commit", "with a job changed"])


def somebody_waits_for_a_lock(database: Database) -> bool:
    query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with database.connect() as connection:
        return bool(connection.execute(query).scalar_one())


@MOMENTS
@pytest.mark.parametrize("asked_to_stop_before", [False, True])
def test_a_job_that_comes_while_the_holder_ends_gets_the_server(
    bench: JobBench, database_url: str, moment: str, asked_to_stop_before: bool
) -> None:
    if bench.database.dialect.name != "postgresql":
        pytest.skip("SQLite lets one transaction after the other write")
    patch = bench.submit()
    if asked_to_stop_before:
        bench.queue.cancel(patch.job_id, "by anna", bench.clock())
    holder = claimed(bench, patch)
    ending = open_database(database_url)
    with held(ending, moment) as (reached, go_on), ThreadPoolExecutor(2) as threads:
        end = threads.submit(LeasedJobs(ending).finish, holder, JobStatus.CANCELLED, bench.clock())
        assert reached.wait(30)
        asked = threads.submit(bench.submit, JobKind.RESCUE)
        wait_until(
            lambda: asked.done() or somebody_waits_for_a_lock(bench.database),
            timeout=30,
            what="the rescue waits for the patch's end, or does not mind it",
        )
        go_on.set()
        assert end.result(30) is None
        rescue = asked.result(30)
    ending.dispose()
    assert rescue.holds_server
    assert bench.engine().run(rescue.job_id) is RunEnd.ENDED


@MOMENTS
def test_a_job_that_came_before_the_holder_ended_gets_the_server(
    bench: JobBench, database_url: str, moment: str
) -> None:
    if bench.database.dialect.name != "postgresql":
        pytest.skip("SQLite lets one transaction after the other write")
    holder = claimed(bench, bench.submit())
    asking = open_database(database_url)
    with held(asking, moment) as (reached, go_on), ThreadPoolExecutor(2) as threads:
        new = NewJob(bench.server_id, JobKind.RESCUE, 1, {}, timedelta(hours=1), "test")
        asked = threads.submit(JobQueue(asking).submit, new, bench.clock())
        assert reached.wait(30)
        end = threads.submit(bench.store.finish, holder, JobStatus.CANCELLED, bench.clock())
        wait_until(
            lambda: end.done() or somebody_waits_for_a_lock(bench.database),
            timeout=30,
            what="the patch's end waits for the rescue to be on record",
        )
        go_on.set()
        rescue = asked.result(30)
        assert end.result(30) == rescue.job_id
    asking.dispose()
    assert bench.engine().run(rescue.job_id) is RunEnd.ENDED


def test_the_clock_hands_over_a_server_that_nobody_holds(bench: JobBench) -> None:
    patch = claimed(bench, bench.submit())
    rescue = bench.submit(JobKind.RESCUE)
    assert bench.queue.to_send(bench.clock(), RESEND) == [], "the patch is at work"
    with writing(bench.database) as connection:
        gone = update(jobs).where(jobs.c.id == patch.job_id)
        connection.execute(gone.values(status="failed", holds_server=False))
    assert bench.queue.to_send(bench.clock(), RESEND) == [rescue.job_id]
    assert bench.engine().run(rescue.job_id) is RunEnd.ENDED


def test_a_jobs_time_begins_when_it_gets_its_server(bench: JobBench) -> None:
    patch = claimed(bench, bench.submit())
    rescue = bench.submit(JobKind.RESCUE)
    bench.clock.pass_time(hours=3)
    bench.store.finish(patch, JobStatus.CANCELLED, bench.clock())
    first = claimed(bench, rescue)
    assert first.deadline == bench.clock() + timedelta(hours=1)
    bench.clock.pass_time(minutes=10)
    assert claimed(bench, rescue).deadline == first.deadline, "a second claim gives no more time"
    bench.clock.pass_time(minutes=10)
    assert bench.engine("worker-2").run(rescue.job_id) is RunEnd.ENDED
    assert bench.queue.job(rescue.job_id).status is JobStatus.SUCCEEDED
