"""Run keys, jobs in line for a busy server, and cancels that come at the last moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from managed.domain.errors import AlreadyExists, Conflict, ManagedError, ServerBusy
from managed.domain.jobs import Job, JobKind, JobStatus
from managed.storage.database import open_database, writing
from managed.storage.job_queue import JobQueue
from managed.storage.leases import LeasedJobs
from managed.storage.tables import jobs
from managed.workflows.engine import RunEnd
from tests.integration.storage.test_handover import (
    MOMENTS,
    claimed,
    held,
    somebody_waits_for_a_lock,
)
from tests.support.jobs import JobBench, step
from tests.support.waiting import wait_until


@pytest.fixture
def bench(database: Database) -> JobBench:
    bench = JobBench(database)
    for kind in (JobKind.PATCH, JobKind.RESCUE, JobKind.DELETE):
        bench.workflow(step("only"), kind=kind)
    return bench


# ---------------------------------------------------------------- run keys


def test_run_key_is_unique_also_after_the_job_has_ended(bench: JobBench) -> None:
    first = bench.submit(run_key="window-1")
    bench.engine().run(first.job_id)
    with pytest.raises(AlreadyExists) as refusal:
        bench.submit(run_key="window-1")
    assert refusal.value.details["job_id"] == first.job_id


def test_each_server_and_kind_has_run_keys_of_its_own(bench: JobBench) -> None:
    window = "2026-03-29T01:00Z"
    first = bench.submit(run_key=window)
    elsewhere = bench.submit(run_key=window, server_id=bench.add_server("two"))
    bench.engine().run(first.job_id)
    other_kind = bench.submit(JobKind.RESCUE, run_key=window)
    assert {job.run_key for job in (first, elsewhere, other_kind)} == {window}


def test_the_database_itself_keeps_a_run_key_unique(bench: JobBench) -> None:
    bench.engine().run(bench.submit(run_key="window-1").job_id)
    with bench.database.connect() as connection:
        row = dict(connection.execute(select(jobs)).one()._mapping)
    with pytest.raises(IntegrityError), writing(bench.database) as connection:
        connection.execute(insert(jobs).values(**row | {"id": "copy"}))


def test_of_many_jobs_with_one_run_key_at_once_one_is_stored(bench: JobBench) -> None:
    together = 8
    at_once = threading.Barrier(together)

    def ask(_: int) -> type[ManagedError] | None:
        at_once.wait(60)
        try:
            bench.submit(run_key="window-1")
        except ManagedError as refusal:
            return type(refusal)
        return None

    with ThreadPoolExecutor(together) as threads:
        answers = list(threads.map(ask, range(together)))
    assert sorted(answers, key=str) == [AlreadyExists] * (together - 1) + [None]


# ---------------------------------------------------------------- in line


def test_one_job_at_most_is_in_line_for_a_server(bench: JobBench) -> None:
    holder = claimed(bench, bench.submit())
    rescue = bench.submit(JobKind.RESCUE)
    for kind in (JobKind.RESCUE, JobKind.RESTORE, JobKind.DELETE):
        with pytest.raises(ServerBusy) as refusal:
            bench.submit(kind)
        assert refusal.value.message == "a rescue job is in line for this server"
        assert refusal.value.details["job_id"] == rescue.job_id
    with pytest.raises(ServerBusy) as refusal:
        bench.submit(JobKind.BACKUP)
    assert refusal.value.details["job_id"] == holder.job_id
    assert len(bench.queue.find()) == 2


def test_a_job_of_higher_precedence_takes_the_place_in_line(bench: JobBench) -> None:
    holder = claimed(bench, bench.submit())
    delete = bench.submit(JobKind.DELETE)
    rescue = bench.submit(JobKind.RESCUE)
    ended = bench.queue.job(delete.job_id)
    assert ended.status is JobStatus.CANCELLED
    assert ended.cancel_requested == "a rescue job goes before it"
    assert bench.event_types(delete) == ["job_submitted", "cancel_requested", "job_ended"]
    assert bench.store.finish(holder, JobStatus.CANCELLED, bench.clock()) == rescue.job_id
    assert bench.event_types(holder).count("cancel_requested") == 1
    assert bench.engine().run(delete.job_id) is RunEnd.NOT_CLAIMED
    assert bench.engine().run(rescue.job_id) is RunEnd.ENDED


def test_a_cancelled_job_in_line_ends_at_once_and_the_holder_goes_on(bench: JobBench) -> None:
    holder = claimed(bench, bench.submit())
    rescue = bench.submit(JobKind.RESCUE)
    answer = bench.queue.cancel(rescue.job_id, "the customer called", bench.clock())
    assert (answer.status, answer.finished_at) == (JobStatus.CANCELLED, bench.clock())
    assert answer.error is not None
    assert answer.error["code"] == "cancelled"
    assert bench.event_types(rescue) == ["job_submitted", "cancel_requested", "job_ended"]
    assert bench.queue.job(holder.job_id).status is JobStatus.RUNNING
    assert bench.store.finish(holder, JobStatus.SUCCEEDED, bench.clock()) is None
    assert bench.submit(JobKind.PATCH).holds_server


# ---------------------------------------------------------------- at the same moment


def beside(
    bench: JobBench,
    database_url: str,
    moment: str,
    first: Callable[[Database], object],
    second: Callable[[], object],
) -> tuple[object, object]:
    """`first`, held in the midst of its transaction, and meanwhile `second`; what they return or
    raise.
    """
    if bench.database.dialect.name != "postgresql":
        pytest.skip("SQLite lets one transaction after the other write")
    database = open_database(database_url)
    with held(database, moment) as (reached, go_on), ThreadPoolExecutor(2) as threads:
        one = threads.submit(first, database)
        assert reached.wait(30)
        other = threads.submit(second)
        wait_until(
            lambda: other.done() or somebody_waits_for_a_lock(bench.database),
            timeout=30,
            what="the second waits for the first, or does not mind it",
        )
        go_on.set()
        ends = one.exception(30) or one.result(), other.exception(30) or other.result()
    database.dispose()
    return ends


@MOMENTS
def test_a_cancel_while_the_job_ends_is_refused(
    bench: JobBench, database_url: str, moment: str
) -> None:
    job = claimed(bench, bench.submit())
    _, cancelled = beside(
        bench,
        database_url,
        moment,
        lambda database: LeasedJobs(database).finish(job, JobStatus.SUCCEEDED, bench.clock()),
        lambda: bench.queue.cancel(job.job_id, "late", bench.clock()),
    )
    assert isinstance(cancelled, Conflict)
    ended = bench.queue.job(job.job_id)
    assert (ended.status, ended.cancel_requested) == (JobStatus.SUCCEEDED, "")
    assert bench.event_types(job)[-1] == "job_ended"


@MOMENTS
def test_a_job_in_line_that_is_cancelled_while_the_holder_ends_gets_no_server(
    bench: JobBench, database_url: str, moment: str
) -> None:
    holder = claimed(bench, bench.submit())
    rescue = bench.submit(JobKind.RESCUE)
    _, handed = beside(
        bench,
        database_url,
        moment,
        lambda database: JobQueue(database).cancel(rescue.job_id, "no need", bench.clock()),
        lambda: bench.store.finish(holder, JobStatus.CANCELLED, bench.clock()),
    )
    assert handed is None
    ended: Job = bench.queue.job(rescue.job_id)
    assert (ended.status, ended.holds_server) == (JobStatus.CANCELLED, False)
    bench.clock.pass_time(minutes=1)
    assert bench.queue.to_send(bench.clock(), timedelta(seconds=1)) == []
