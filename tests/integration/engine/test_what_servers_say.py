"""Whatever a server says is recorded and keeps no job from its end, on both databases."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Engine as Database

from managed.domain import documents
from managed.domain.errors import CommandFailed, Json
from managed.domain.jobs import JobStatus
from managed.workflows.engine import RunEnd
from managed.workflows.steps import Done, Outcome, StepContext
from tests.support.jobs import JobBench, step

SAID: dict[str, Json] = {"names": ["latin-\udce9", "nul \0"], "load": float("nan")}
KEPT = {"names": ["latin-\\xe9", "nul \\x00"], "load": "nan"}


@pytest.fixture
def bench(database: Database) -> JobBench:
    return JobBench(database)


def everything_of(bench: JobBench, job_id: str) -> str:
    """All that the database gives back of a job, as a client gets it."""
    job = bench.queue.job(job_id)
    told = [event.data for event in bench.events.after(job_id, 0)]
    parts = [told, [s.result for s in job.steps], [s.error for s in job.steps], job.error]
    text = json.dumps([*parts, job.warnings], ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8").decode()


def test_odd_names_and_numbers_are_kept_in_a_form_that_can_be_shown(bench: JobBench) -> None:
    def take(context: StepContext) -> Outcome:
        context.emit("run_output", SAID)
        return Done(SAID, warnings=["odd: \udce9\0"])

    bench.workflow(step("take", take))
    job = bench.submit()

    assert bench.engine().run(job.job_id) is RunEnd.ENDED

    job = bench.queue.job(job.job_id)
    assert job.status is JobStatus.SUCCEEDED
    assert job.steps[0].result == KEPT
    assert job.warnings == ("odd: \\xe9\\x00",)
    said = [e.data for e in bench.events.after(job.job_id, 0) if e.type == "run_output"]
    assert said == [KEPT]
    assert "latin-\\\\xe9" in everything_of(bench, job.job_id)


def test_an_error_with_odd_details_ends_the_job_like_any_other(bench: JobBench) -> None:
    def fail(_context: StepContext) -> Outcome:
        raise CommandFailed("no \udce9", hint="\0", **SAID)

    bench.workflow(step("take", fail))
    job = bench.submit()

    assert bench.engine().run(job.job_id) is RunEnd.ENDED

    job = bench.queue.job(job.job_id)
    assert job.error is not None
    assert (job.status, job.error["detail"]) == (JobStatus.FAILED, "no \\xe9")
    assert job.error["data"] == KEPT
    assert "latin-\\\\xe9" in everything_of(bench, job.job_id)


def test_a_result_that_is_too_large_fails_its_job_and_is_not_kept(
    bench: JobBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "LARGEST_DOCUMENT", 1000)
    bench.workflow(step("take", lambda _: Done({"text": "x" * 1001})))
    job = bench.submit()

    assert bench.engine().run(job.job_id) is RunEnd.ENDED

    job = bench.queue.job(job.job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (JobStatus.FAILED, "evidence-missing")
    assert "xxx" not in everything_of(bench, job.job_id)
