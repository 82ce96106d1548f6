"""What an opening of a window has started and missed is found by an index, however much there was
before; and what its surveys have found is counted by servers.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event, text, update

from managed.domain.jobs import JobKind
from managed.domain.surveys import Finding, Survey, SurveyOutcome
from managed.domain.windows import Opening
from managed.storage.database import take_time, writing
from managed.storage.job_queue import JobQueue
from managed.storage.surveys import SurveyRecords
from managed.storage.tables import jobs
from managed.storage.windows import MissedWindow, Windows
from tests.support.jobs import START, JobBench

OPENING = Opening(START, START + timedelta(hours=2))
BEFORE = 20_000


@pytest.fixture
def bench(database: Database) -> JobBench:
    """A server with 20,000 nights behind it, and the present one, whose next job waits."""
    bench = JobBench(database)
    job = bench.submit(run_key=OPENING.run_key)
    windows = Windows(database)
    windows.record_missed(
        [MissedWindow(bench.server_id, JobKind.PATCH, OPENING, "it was busy", OPENING.ends_at)]
    )
    with writing(database) as connection:
        take_time(connection)
        connection.execute(update(jobs).values(status="succeeded", holds_server=False))
        numbered = "WITH RECURSIVE nights(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM nights"
        numbered += f" WHERE n < {BEFORE})"
        names = ", ".join(c.name for c in jobs.columns if c.name not in ("id", "run_key"))
        connection.execute(
            text(
                f"INSERT INTO jobs (id, run_key, {names}) {numbered}"  # noqa: S608
                f" SELECT 'job-' || n, 'clock:window:' || n, {names} FROM jobs, nights"
                " WHERE jobs.id = :id"
            ),
            {"id": job.job_id},
        )
        days_before = (
            "starts_at - n * interval '1 day'"
            if database.dialect.name == "postgresql"
            else "strftime('%Y-%m-%d %H:%M:%f', starts_at, '-' || n || ' days')"
        )
        connection.execute(
            text(
                "INSERT INTO missed_windows"  # noqa: S608
                " (server_id, job_kind, starts_at, ends_at, reason, recorded_at)"
                f" {numbered} SELECT server_id, job_kind, {days_before}, ends_at, reason,"
                " recorded_at FROM missed_windows, nights"
            )
        )
        connection.execute(text("ANALYZE"))
    bench.submit(JobKind.BACKUP)
    return bench


@pytest.mark.parametrize(
    ("look", "index"),
    [
        (
            lambda database: Windows(database).started(JobKind.PATCH, OPENING.run_key),
            "ix_jobs_kind_run_key",
        ),
        (
            lambda database: Windows(database).known_as_missed(JobKind.PATCH, OPENING),
            "ix_missed_windows_opening",
        ),
        (lambda database: JobQueue(database).busy_servers().keys(), "ix_jobs_open"),
    ],
)
def test_what_the_clock_asks_for_an_opening_is_found_by_an_index(
    bench: JobBench, look: Callable[[Database], Set[str]], index: str
) -> None:
    asked: list[tuple[str, Any]] = []

    def note(*given: Any) -> None:
        asked.append((given[2], given[3]))

    event.listen(bench.database, "before_cursor_execute", note)
    assert look(bench.database) == {bench.server_id}
    event.remove(bench.database, "before_cursor_execute", note)
    ((statement, parameters),) = [one for one in asked if one[0].startswith("SELECT")]
    explain = "EXPLAIN" if bench.database.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    with bench.database.connect() as connection:
        plan = str(connection.exec_driver_sql(f"{explain} {statement}", parameters).all())
    assert index in plan, plan


def test_surveys_are_counted_by_what_they_have_found(database: Database) -> None:
    bench = JobBench(database)
    one, two = bench.add_server("1"), bench.add_server("2")
    found = [
        (one, 1, SurveyOutcome.NOTHING_TO_DO),
        (one, 2, SurveyOutcome.NOTHING_TO_DO),
        (two, 1, SurveyOutcome.UNKNOWN),
        (two, 2, SurveyOutcome.WORK),
    ]
    records = SurveyRecords(database)
    records.record([survey_of(server_id, hour, outcome) for server_id, hour, outcome in found])
    assert records.counts(START) == {
        SurveyOutcome.NOTHING_TO_DO: 2,
        SurveyOutcome.UNKNOWN: 1,
        SurveyOutcome.WORK: 1,
    }
    assert records.counts(START + timedelta(hours=2)) == {
        SurveyOutcome.NOTHING_TO_DO: 1,
        SurveyOutcome.WORK: 1,
    }


def survey_of(server_id: str, hour: int, outcome: SurveyOutcome) -> Survey:
    begins = START + timedelta(hours=hour)
    opening = Opening(begins, begins + timedelta(hours=1))
    return Survey(server_id, JobKind.PATCH, opening, begins, Finding(outcome, "it was asked"))
