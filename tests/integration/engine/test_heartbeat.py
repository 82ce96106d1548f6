"""The lease while the database is slow, hangs or fails: kept, or given up in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine as Database

from managed.domain.errors import Json, LeaseLost, ServerUnreachable
from managed.domain.events import NewEvent
from managed.domain.jobs import Job, JobStatus
from managed.storage.database import DatabaseUnavailable
from managed.storage.leases import LeasedJobs
from managed.workflows.engine import RunEnd
from managed.workflows.heartbeat import Heartbeat
from managed.workflows.steps import StepContext
from tests.support.jobs import JobBench, step
from tests.support.waiting import wait_until

LEASE = timedelta(seconds=30)


class TroubledStore(LeasedJobs):
    """Hangs, or fails with `renewals`; refuses the first `refused_writes` writes of events."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.hangs = threading.Event()
        self.is_hanging = threading.Event()
        self.goes_on = threading.Event()
        self.renewals: Exception | None = None
        self.renewed = 0
        self.refused_writes = 0

    def renew(self, job: Job, now: datetime, lease_for: timedelta) -> None:
        if self.hangs.is_set():
            self.is_hanging.set()
            self.goes_on.wait(60)
        if self.renewals is not None:
            raise self.renewals
        super().renew(job, now, lease_for)
        self.renewed += 1

    def append_events(self, job: Job, new: Sequence[NewEvent]) -> None:
        if self.refused_writes:
            self.refused_writes -= 1
            raise DatabaseUnavailable("it is away")
        super().append_events(job, new)


@dataclass
class Stage:
    bench: JobBench
    store: TroubledStore
    ended: list[Mapping[str, Json]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.job = self.bench.submit()
        claimed = self.store.claim(self.job.job_id, "worker-1", self.bench.clock(), LEASE)
        assert claimed is not None
        self.claimed = claimed[0]
        self.heartbeat = Heartbeat(
            self.claimed,
            self.store,
            self.bench.children,
            self.bench.clock,
            self.bench.clock.stopwatch,
            LEASE,
        )

    def is_lost(self) -> bool:
        return self.heartbeat.is_lost


@pytest.fixture
def stage(database: Database) -> Iterator[Stage]:
    store = TroubledStore(database)
    yield Stage(JobBench(database), store)
    store.goes_on.set()


def test_a_lease_is_renewed_a_third_into_its_time(stage: Stage) -> None:
    with stage.heartbeat:
        for round_number in range(1, 5):
            stage.bench.clock.pass_time(seconds=11)
            wait_until(
                lambda n=round_number: stage.store.renewed >= n,  # type: ignore[misc]
                timeout=20,
                what="it is renewed",
            )
    assert not stage.is_lost()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_clock_that_is_set_back_neither_keeps_a_lease_nor_loses_it(
    stage: Stage, hangs: bool
) -> None:
    if hangs:
        stage.store.hangs.set()
    with stage.heartbeat:
        stage.bench.clock.set_back(hours=1)
        stage.bench.clock.pass_time(seconds=11)
        if hangs:
            assert stage.store.is_hanging.wait(20)
            stage.bench.clock.pass_time(seconds=10)
            wait_until(stage.is_lost, timeout=20, what="the lease is given up")
        else:
            wait_until(lambda: stage.store.renewed, timeout=20, what="it is renewed")
    assert stage.is_lost() is hangs


def test_a_renewal_that_hangs_does_not_keep_the_lease_from_being_given_up(stage: Stage) -> None:
    stage.store.hangs.set()
    with stage.heartbeat:
        stage.heartbeat.register_child(4711)
        stage.bench.clock.pass_time(seconds=21)
        wait_until(stage.is_lost, timeout=20, what="the lease is given up")
        wait_until(lambda: stage.bench.children.ended, timeout=20, what="the child is ended")
        with pytest.raises(LeaseLost):
            stage.heartbeat.register_child(4712)
    assert stage.bench.children.ended == [{"group": 4711}, {"group": 4712}]
    assert not stage.store.goes_on.is_set(), "leaving did not wait for the renewal"


def test_a_process_that_stood_still_asks_the_time_before_its_threads_do(stage: Stage) -> None:
    """Here they never run."""
    stage.bench.clock.pass_time(seconds=19)
    stage.heartbeat.require_lease()
    stage.bench.clock.pass_time(seconds=1)
    with pytest.raises(LeaseLost):
        stage.heartbeat.require_lease()
    assert stage.is_lost()


def test_a_renewal_that_hangs_at_the_works_end_gives_the_lease_up_too(stage: Stage) -> None:
    stage.store.hangs.set()
    leaving = threading.Thread(target=stage.heartbeat.__exit__, args=(None, None, None))
    stage.heartbeat.__enter__()
    stage.bench.clock.pass_time(seconds=11)
    assert stage.store.is_hanging.wait(20)
    leaving.start()
    stage.bench.clock.pass_time(seconds=10)
    leaving.join(20)
    assert not leaving.is_alive()


@pytest.mark.parametrize("error", [RuntimeError("a defect"), DatabaseUnavailable("it is away")])
def test_renewals_that_go_on_failing_end_in_giving_up(stage: Stage, error: Exception) -> None:
    stage.store.renewals = error
    with stage.heartbeat:
        stage.bench.clock.pass_time(seconds=11)
        stage.bench.clock.pass_time(seconds=10)
        wait_until(stage.is_lost, timeout=20, what="the lease is given up")


def test_an_outage_that_is_over_excuses_no_later_stand_still(stage: Stage) -> None:
    stage.store.renewals = DatabaseUnavailable("it is away")
    with stage.heartbeat:
        stage.bench.clock.pass_time(seconds=11)
        wait_until(lambda: stage.heartbeat.has_met_outage, timeout=20, what="it has met it")
        stage.store.renewals = None
        wait_until(lambda: stage.store.renewed, timeout=20, what="it is renewed after all")
        wait_until(lambda: not stage.heartbeat.has_met_outage, timeout=20, what="it is over")


def test_a_defect_that_passes_costs_nothing(stage: Stage) -> None:
    stage.store.renewals = RuntimeError("a defect")
    with stage.heartbeat:
        stage.bench.clock.pass_time(seconds=11)
        stage.store.renewals = None
        wait_until(lambda: stage.store.renewed, timeout=20, what="it is renewed after all")
    assert not stage.is_lost()


def test_events_whose_write_failed_are_written_later_once_and_in_order(stage: Stage) -> None:
    stage.store.refused_writes = 3
    with stage.heartbeat:
        for number in range(1200):
            stage.heartbeat.emit("line", {"number": number})
        wait_until(lambda: stage.store.refused_writes == 0, timeout=20, what="the database is back")
        stage.heartbeat.emit("line", {"number": 1200})
    seen = stage.bench.events.after(stage.job.job_id, 0, limit=5000)
    assert [e.data["number"] for e in seen if e.type == "line"] == list(range(1201))


def test_an_engine_that_lost_its_lease_writes_no_more(stage: Stage) -> None:
    """Also not the end of the claim: the successor decides how the job goes on."""
    bench = stage.bench
    store, other = stage.store, bench.submit(server_id=bench.add_server("two"))

    def stall(_: StepContext) -> None:
        store.hangs.set()
        bench.clock.pass_time(seconds=21)
        raise ServerUnreachable("no route to host")

    bench.workflow(step("stall", stall))
    bench.store = store
    assert bench.engine().run(other.job_id) is RunEnd.LEASE_LOST
    left = bench.queue.job(other.job_id)
    assert (left.status, left.step_attempt) == (JobStatus.RUNNING, 1)
