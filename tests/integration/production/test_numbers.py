"""/metrics: what the numbers say of what there is, who may read them, what they cost."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event, text, update

from api.metrics import Metrics
from managed.domain.customers import Plan, PlanKind
from managed.domain.jobs import JobKind
from managed.domain.secrets import Secret
from managed.domain.snapshots import KeptObject, SnapshotRecord
from managed.domain.surveys import Finding, Survey, SurveyOutcome
from managed.domain.windows import Opening, Window, WindowOwner
from managed.storage.catalogue import Catalogue
from managed.storage.customers import Customers
from managed.storage.database import open_database, reading, take_time, writing
from managed.storage.numbers import Numbers, read_numbers
from managed.storage.surveys import SurveyRecords
from managed.storage.tables import jobs
from managed.storage.windows import MissedWindow, Windows
from tests.support.jobs import START, JobBench
from tests.support.postgres import empty

PLAN = Plan("00000000-0000-4000-8000-0000000000aa", "plus", PlanKind.MANAGED)
BARE = Plan("00000000-0000-4000-8000-0000000000bb", "bare", PlanKind.UNMANAGED)


@pytest.fixture
def bench(database: Database) -> JobBench:
    return bench_on(database)


def bench_on(database: Database) -> JobBench:
    bench = JobBench(database)
    with writing(database) as connection:
        for plan in (PLAN, BARE):
            Customers(database).add_plan(connection, plan, bench.clock())
    return bench


def numbers(bench: JobBench) -> Numbers:
    return read_numbers(bench.database, bench.clock())


def place(bench: JobBench, name: str, plan: Plan) -> str:
    server_id = bench.add_server(name)
    with writing(bench.database) as connection:
        server = bench.inventory.get(server_id)
        Customers(bench.database).place(connection, server, None, plan.plan_id, bench.clock())
    return server_id


def back_up(
    bench: JobBench, server_id: str, *, verified: bool, paths: tuple[str, ...] = ()
) -> None:
    job = bench.submit(JobKind.BACKUP, server_id=server_id)
    bench.queue.cancel(job.job_id, "only its record is needed", bench.clock())
    claimed = bench.store.claim(job.job_id, "w", bench.clock(), timedelta(minutes=1))
    if claimed is not None:
        bench.store.finish(claimed[0], claimed[0].status.CANCELLED, bench.clock())
    kept, catalogue = KeptObject("k", "0" * 64), Catalogue(bench.database)
    snapshot_id = job.job_id.replace("-", "") * 2
    catalogue.add(
        SnapshotRecord(
            snapshot_id, server_id, job.job_id, bench.clock(), 1, 1, kept, kept, paths=paths
        )
    )
    if verified:
        catalogue.mark_verified(snapshot_id, {}, bench.clock())


def test_nothing_there_is_all_zero(bench: JobBench) -> None:
    found = numbers(bench)
    assert (found.open_jobs, found.oldest_unbegun, found.abandoned) == ({}, None, 0)
    assert (found.backups.servers, found.backups.oldest, found.missed_windows) == (0, None, {})


def test_the_age_of_the_queue_is_that_of_what_no_worker_has_begun(bench: JobBench) -> None:
    begun = bench.submit()
    assert bench.store.claim(begun.job_id, "w", bench.clock(), timedelta(hours=1))
    bench.clock.pass_time(minutes=1)
    submitted_at = bench.clock()
    bench.submit(server_id=bench.add_server("two"))
    bench.clock.pass_time(minutes=5)
    bench.submit(JobKind.CHECK, server_id=bench.add_server("three"))
    found = numbers(bench)
    assert found.oldest_unbegun == submitted_at
    assert found.open_jobs == {
        ("running", "patch"): 1,
        ("queued", "patch"): 1,
        ("queued", "check"): 1,
    }


def test_what_a_pause_holds_back_waits_for_no_worker(bench: JobBench) -> None:
    bench.submit()
    since = bench.clock()
    with writing(bench.database) as connection:
        Windows(bench.database).begin_pause(connection, "a bad kernel", "somebody", since)
    found = numbers(bench)
    assert (found.oldest_unbegun, found.paused_since) == (None, since)


def test_a_job_whose_worker_is_gone_is_abandoned(bench: JobBench) -> None:
    job = bench.submit()
    assert bench.store.claim(job.job_id, "w", bench.clock(), timedelta(seconds=30))
    assert numbers(bench).abandoned == 0
    bench.clock.pass_time(seconds=31)
    assert numbers(bench).abandoned == 1


def test_only_verified_backups_of_managed_servers_count(bench: JobBench) -> None:
    servers = [place(bench, name, PLAN) for name in ("1", "2", "3")]
    place(bench, "4", BARE)
    back_up(bench, servers[0], verified=True)
    first = bench.clock()
    bench.clock.pass_time(hours=20)
    back_up(bench, servers[1], verified=True)
    back_up(bench, servers[2], verified=False)
    found = numbers(bench).backups
    assert (found.servers, found.never, found.late, found.oldest) == (3, 1, 0, first)
    bench.clock.pass_time(hours=7)
    back_up(bench, servers[0], verified=True)
    found = numbers(bench).backups
    assert (found.never, found.late) == (1, 1)
    assert found.oldest == START + timedelta(hours=20)


def test_what_was_taken_of_some_paths_before_a_restore_is_no_backup(bench: JobBench) -> None:
    server = place(bench, "1", PLAN)
    back_up(bench, server, verified=True, paths=("/etc/nginx",))
    assert numbers(bench).backups.never == 1
    back_up(bench, server, verified=True)
    assert numbers(bench).backups.never == 0


def test_missed_windows_of_the_last_day_are_counted_by_kind(bench: JobBench) -> None:
    windows, now = Windows(bench.database), bench.clock()
    for hours, kind in (
        (1, JobKind.PATCH),
        (2, JobKind.PATCH),
        (3, JobKind.BACKUP),
        (25, JobKind.PATCH),
    ):
        at = now - timedelta(hours=hours)
        opening = Opening(at - timedelta(hours=1), at)
        windows.record_missed([MissedWindow(bench.server_id, kind, opening, "busy", at)])
    assert numbers(bench).missed_windows == {"patch": 2, "backup": 1}


def test_windows_whose_rule_cannot_be_followed_are_counted(bench: JobBench) -> None:
    windows = Windows(bench.database)
    for kind, rule, starts_on in (
        (JobKind.PATCH, "FREQ=DAILY;BYHOUR=2;BYHOUR=3", START.date()),
        (JobKind.BACKUP, "FREQ=DAILY;BYHOUR=2", date(9990, 12, 28)),
        (JobKind.CHECK, "FREQ=DAILY;BYHOUR=2", START.date()),
    ):
        window = Window(
            str(kind),
            WindowOwner.SERVER,
            bench.server_id,
            kind,
            rule,
            "UTC",
            60,
            starts_on,
            START,
        )
        with writing(bench.database) as connection:
            windows.add(connection, window)
    assert numbers(bench).unreadable_windows == 2
    metrics = Metrics(Secret("token"), lambda now: read_numbers(bench.database, now), bench.clock)
    assert b"managed_windows_unreadable 2.0" in metrics.text()


def test_surveys_of_the_last_day_are_counted_by_what_they_found(bench: JobBench) -> None:
    now = bench.clock()
    for hours, outcome in ((1, "nothing-to-do"), (2, "nothing-to-do"), (3, "work"), (25, "work")):
        opening = Opening(now - timedelta(hours=hours), now)
        finding = Finding(SurveyOutcome(outcome), "")
        survey = Survey(bench.server_id, JobKind.PATCH, opening, now, finding)
        SurveyRecords(bench.database).record([survey])
    assert numbers(bench).surveys == {SurveyOutcome.NOTHING_TO_DO: 2, SurveyOutcome.WORK: 1}
    metrics = Metrics(Secret("token"), lambda now: read_numbers(bench.database, now), bench.clock)
    assert b'managed_surveys_last_day{outcome="nothing-to-do"} 2.0' in metrics.text()
    assert b'managed_surveys_last_day{outcome="unknown"} 0.0' in metrics.text()


def test_however_many_ask_the_database_is_asked_once_in_a_while(bench: JobBench) -> None:
    statements: list[str] = []
    metrics = Metrics(Secret("token"), lambda now: read_numbers(bench.database, now), bench.clock)

    @event.listens_for(bench.database, "before_cursor_execute")
    def _note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    answers = {metrics.text() for _ in range(20)}
    assert len(answers) == 1
    assert len([line for line in statements if line.startswith("SELECT")]) == 8


@pytest.mark.integration
def test_on_postgresql_no_query_reads_what_has_ended(postgres_url: str) -> None:
    """The plans that the database makes for the real queries, beside 20,000 ended jobs."""
    database = open_database(postgres_url)
    empty(database)
    bench = bench_on(database)
    ended = bench.submit()
    with writing(bench.database) as connection:
        take_time(connection)
        connection.execute(
            update(jobs).values(status="succeeded", holds_server=False, finished_at=START)
        )
        names = ", ".join(c.name for c in jobs.columns if c.name not in ("id", "run_key"))
        connection.execute(
            text(
                f"INSERT INTO jobs (id, {names}) SELECT gen_random_uuid()::text, {names}"  # noqa: S608
                " FROM jobs, generate_series(1, 20000) WHERE jobs.id = :id"
            ),
            {"id": ended.job_id},
        )
        connection.execute(text("ANALYZE jobs"))
    plans = explained(bench)
    with writing(database) as connection:
        connection.execute(text("TRUNCATE jobs CASCADE"))
    database.dispose()
    assert [plan for plan in plans if "ix_jobs_open" in plan], plans
    assert not [plan for plan in plans if "Seq Scan on jobs" in plan]


def explained(bench: JobBench) -> list[str]:
    """The plan of every query that the numbers take, with the parameters that it has there."""
    asked: list[tuple[str, object]] = []

    @event.listens_for(bench.database, "before_cursor_execute")
    def _note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("SELECT") and "FROM" in statement:
            asked.append((statement, parameters))

    numbers(bench)
    event.remove(bench.database, "before_cursor_execute", _note)
    with reading(bench.database) as connection:
        return [
            "\n".join(connection.exec_driver_sql(f"EXPLAIN {query}", given).scalars())  # type: ignore[arg-type]
            for query, given in asked
        ]


def test_ages_are_told_in_seconds(bench: JobBench) -> None:
    bench.submit()
    bench.clock.pass_time(seconds=90)
    metrics = Metrics(Secret("token"), lambda now: read_numbers(bench.database, now), bench.clock)
    assert b"managed_queue_oldest_seconds 90.0" in metrics.text()
