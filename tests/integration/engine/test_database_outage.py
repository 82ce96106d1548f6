"""The database is away when a step's end is to be recorded: no death of a worker is counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine as Database

from managed.domain.jobs import Job, JobStatus
from managed.domain.progress import MOST_WORKER_DEATHS
from managed.storage.database import DatabaseUnavailable
from managed.storage.leases import LeasedJobs
from managed.workflows.engine import RunEnd
from tests.support.jobs import JobBench, step


class StoreWithOutages(LeasedJobs):
    """Each record of a step meets an outage that lasts for two more tries to give the job back.
    `is_taken_over`: another worker was quicker than the end of the outage.
    """

    def __init__(self, database: Database, outages: int) -> None:
        super().__init__(database)
        self.outages = outages
        self.refused = 0
        self.is_taken_over = lambda: None

    def record_step(self, *given: Any, **options: Any) -> Job:
        self._meet_outage()
        return super().record_step(*given, **options)

    def finish(self, *given: Any, **options: Any) -> str | None:
        self._meet_outage()
        return super().finish(*given, **options)

    def _meet_outage(self) -> None:
        if self.outages:
            self.outages -= 1
            self.refused = 2
            raise DatabaseUnavailable("it is away")

    def give_back(self, job: Job) -> bool:
        if self.refused:
            self.refused -= 1
            raise DatabaseUnavailable("it is away")
        self.is_taken_over()
        return super().give_back(job)


@pytest.fixture(params=[("work",), ("work", "rest")], ids=["last", "not-last"])
def bench(database: Database, request: pytest.FixtureRequest) -> JobBench:
    bench = JobBench(database)
    bench.workflow(*map(step, request.param))
    return bench


def test_a_worker_that_outlives_outages_gives_the_job_back_and_is_not_counted_as_dead(
    bench: JobBench, database: Database
) -> None:
    outages = MOST_WORKER_DEATHS + 1
    engine = replace(bench.engine(), store=StoreWithOutages(database, outages))
    job = bench.submit()
    for _ in range(outages):
        assert engine.run(job.job_id) is RunEnd.RELEASED
        assert bench.queue.job(job.job_id).status is JobStatus.QUEUED
    assert engine.run(job.job_id) is RunEnd.ENDED
    ended = bench.queue.job(job.job_id)
    assert (ended.status, ended.error) == (JobStatus.SUCCEEDED, None)


def test_a_job_that_was_taken_over_in_the_outage_is_left_to_its_new_holder(
    bench: JobBench, database: Database
) -> None:
    job, store = bench.submit(), StoreWithOutages(database, 1)

    def take_over() -> None:
        bench.clock.pass_time(seconds=31)
        assert store.claim(job.job_id, "worker-2", bench.clock(), timedelta(seconds=30))

    store.is_taken_over = take_over
    assert replace(bench.engine(), store=store).run(job.job_id) is RunEnd.LEASE_LOST
    left = bench.queue.job(job.job_id)
    assert (left.status, left.worker_deaths) == (JobStatus.RUNNING, 0)
