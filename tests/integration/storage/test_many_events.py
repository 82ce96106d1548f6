"""What a step says goes on record with it, in order, however much it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy.exc import IntegrityError

from managed.domain.errors import LeaseLost
from managed.domain.events import NewEvent
from managed.domain.jobs import Job, StepResult, StepStatus
from tests.support.jobs import START, JobBench

LEASE = timedelta(seconds=30)
DONE = StepResult("first", StepStatus.DONE, 1, START, START, {"files": 3})
# As a server may write them: no UTF-8, a NUL, a number that JSON does not know, COPY's own marks.
ODD = {"a": "latin-\udce8", "b": "nul\0", "c": float("nan"), "d": "\\N\t\\.\n", "e": {"f": [1]}}


@pytest.fixture
def bench(database: Database) -> JobBench:
    return JobBench(database)


def claimed(bench: JobBench) -> Job:
    found = bench.store.claim(bench.submit().job_id, "worker-1", bench.clock(), LEASE)
    assert found is not None
    return found[0]


def said(number: int) -> Sequence[NewEvent]:
    return [NewEvent(START, "line", {"number": place}) for place in range(number)]


@pytest.mark.parametrize("number", [1, 500])
def test_however_many_there_are_they_are_numbered_in_order(bench: JobBench, number: int) -> None:
    job = claimed(bench)
    bench.store.append_events(job, said(number))
    bench.store.append_events(job, said(number))
    found = bench.events.after(job.job_id, 1, 2000)
    assert [event.seq for event in found] == list(range(2, 2 * number + 2))
    assert [event.data["number"] for event in found] == [*range(number), *range(number)]
    assert {(event.at, event.server_id) for event in found} == {(START, bench.server_id)}


def test_odd_output_is_kept_in_the_same_way_one_by_one_and_in_a_mass(bench: JobBench) -> None:
    job = claimed(bench)
    odd = NewEvent(START, "line", ODD)
    bench.store.append_events(job, [odd])
    bench.store.append_events(job, [odd] * 100)
    found = bench.events.after(job.job_id, 1, 2000)
    assert len(found) == 101
    assert all(event.data == found[0].data for event in found)
    assert found[0].data["d"] == ODD["d"]


def test_what_a_step_said_stands_before_its_end_and_after_its_beginning(bench: JobBench) -> None:
    job = bench.store.start_step(claimed(bench), "first", START, said(1))
    bench.store.record_step(job, DONE, (), said(30))
    types = bench.event_types(job)
    assert types == ["job_submitted", "line", "step_started", *["line"] * 30, "step_done"]


def test_a_step_that_is_begun_again_is_told_of_once(bench: JobBench) -> None:
    job = bench.store.start_step(claimed(bench), "first", START)
    bench.store.start_step(job, "first", START)
    assert bench.event_types(job).count("step_started") == 1


@pytest.mark.parametrize("number", [1, 30])
def test_a_step_that_cannot_be_recorded_leaves_none_of_its_events(
    bench: JobBench, number: int
) -> None:
    job = bench.store.record_step(claimed(bench), DONE)
    before = bench.event_types(job)
    with pytest.raises(IntegrityError):
        bench.store.record_step(job, DONE, (), said(number))
    assert bench.event_types(job) == before


def test_who_was_taken_over_leaves_none_of_many_events(bench: JobBench) -> None:
    job = claimed(bench)
    bench.clock.pass_time(seconds=31)
    assert bench.store.claim(job.job_id, "worker-2", bench.clock(), LEASE) is not None
    with pytest.raises(LeaseLost):
        bench.store.append_events(job, said(30))
    assert bench.event_types(job) == ["job_submitted"]


def test_a_leased_job_knows_all_of_its_steps(bench: JobBench) -> None:
    """They are not read again with each change: only the holder adds any."""
    job = bench.store.record_step(claimed(bench), DONE)
    bench.clock.pass_time(seconds=31)
    successor = bench.store.claim(job.job_id, "worker-2", bench.clock(), LEASE)
    assert successor is not None
    started = bench.store.start_step(successor[0], "second", START)
    assert [step.name for step in started.steps] == ["first"]
    assert started.steps == bench.queue.job(job.job_id).steps == job.steps
