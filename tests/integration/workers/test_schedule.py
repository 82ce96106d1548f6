"""The clock: one duty that fails stops no other, and without its poller it does not live on."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from managed.domain.jobs import JobKind, JobStatus
from managed.domain.rescue import RescueSession
from managed.domain.servers import ServerStatus
from managed.settings import Settings
from managed.storage.database import writing
from managed.storage.tables import jobs
from managed.wiring import Installation, prepare_installation
from tests.support.jobs import START, JobBench
from tests.support.runtime import short_directory
from workers import schedule
from workers.schedule import Clock, keep_time


class Stage:
    def __init__(self, database: Database) -> None:
        self.bench = JobBench(database)
        self.installation = Installation(Settings(), database, self.bench.clock)
        self.clock = Clock(self.installation)

    def abandoned_session(self) -> RescueSession:
        opened_by = self.bench.submit(JobKind.RESCUE)
        self.end(opened_by.job_id, JobStatus.SUCCEEDED)
        session = RescueSession(
            session_id="abandoned",
            server_id=self.bench.server_id,
            job_id=opened_by.job_id,
            host_key="key",
            status_before=ServerStatus.ACTIVE,
            started_at=START,
            expires_at=START + timedelta(hours=1),
        )
        return self.installation.sessions.open(session)

    def end(self, job_id: str, status: JobStatus) -> None:
        claimed = self.bench.store.claim(job_id, "w", self.bench.clock(), timedelta(minutes=1))
        assert claimed is not None
        self.bench.store.finish(claimed[0], status, self.bench.clock())

    def attempts(self) -> list[str]:
        found = self.bench.queue.find(kind=JobKind.UNRESCUE)
        return [job.job_id for job in found]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    ids: list[str] = []
    monkeypatch.setattr(schedule, "send_all", lambda _, job_ids: ids.extend(job_ids))
    return ids


@pytest.fixture
def stage(database: Database, sent: list[str]) -> Stage:
    return Stage(database)


def refuse(error: Exception) -> Callable[..., Any]:
    def refused(*_: object) -> None:
        raise error

    return refused


def test_a_job_submitted_before_the_first_tick_is_sent_and_its_events_stay(
    stage: Stage, sent: list[str]
) -> None:
    job = stage.bench.submit()
    stage.clock.tick()
    assert sent == [job.job_id]
    assert stage.bench.event_types(job) == ["job_submitted"]


def test_a_job_whose_server_nobody_holds_gets_it_at_a_tick(stage: Stage, sent: list[str]) -> None:
    job = stage.bench.submit()
    with writing(stage.bench.database) as connection:
        connection.execute(update(jobs).values(holds_server=False))
    stage.clock.tick()
    assert sent == [job.job_id]


def test_in_a_pause_no_session_is_ended(stage: Stage) -> None:
    stage.abandoned_session()
    stage.bench.clock.pass_time(hours=2)
    windows, database = stage.installation.windows, stage.bench.database
    with writing(database) as connection:
        windows.begin_pause(connection, "restored", "restore-self", stage.bench.clock())
    stage.clock.tick()
    assert stage.attempts() == []
    with writing(database) as connection:
        windows.end_pause(connection)
    stage.clock.tick()
    assert len(stage.attempts()) == 1


def test_a_duty_that_fails_stops_no_other_and_is_tried_again(
    stage: Stage, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[datetime] = []
    forgotten: list[datetime] = []

    def prepare(now: datetime) -> None:
        prepared.append(now)
        if len(prepared) == 1:
            raise IntegrityError("CREATE TABLE", {}, Exception("check violation"))

    monkeypatch.setattr(stage.installation.sessions, "expired", refuse(KeyError("defect")))
    monkeypatch.setattr(stage.installation.events, "prepare_partitions", prepare)
    monkeypatch.setattr(schedule, "forget_answers", lambda _, before: forgotten.append(before))
    job = stage.bench.submit()
    clock = Clock(stage.installation)
    for _ in range(12):
        clock.tick()
        stage.bench.clock.pass_time(seconds=10)
    assert prepared == [START, START + timedelta(minutes=1)]
    assert len(forgotten) == 1
    assert job.job_id in sent


def test_an_abandoned_session_gets_one_job_at_a_time_and_ever_more_rarely(stage: Stage) -> None:
    """Each of them fails. The pauses, in minutes, double up to six hours."""
    stage.abandoned_session()
    stage.clock.tick()
    assert stage.attempts() == []
    stage.bench.clock.pass_time(minutes=60)
    stage.clock.tick()
    for number, pause in enumerate((1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360), start=1):
        stage.clock.tick()
        assert len(stage.attempts()) == number, "one at a time"
        stage.end(stage.attempts()[0], JobStatus.FAILED)
        stage.bench.clock.pass_time(minutes=pause - 1)
        stage.clock.tick()
        assert len(stage.attempts()) == number, "not yet"
        stage.bench.clock.pass_time(minutes=1)
        stage.clock.tick()
        assert len(stage.attempts()) == number + 1


def test_two_clocks_end_a_session_by_one_job(stage: Stage) -> None:
    session = stage.abandoned_session()
    stage.bench.clock.pass_time(hours=1)
    found = stage.installation.sessions.expired(stage.bench.clock())
    assert [s.session_id for s in found] == [session.session_id]
    now = stage.bench.clock()
    stage.clock._end_session(session, now)
    (first,) = stage.attempts()
    stage.clock._end_session(session, now)
    assert stage.attempts() == [first]
    stage.end(first, JobStatus.FAILED)
    stage.bench.clock.pass_time(hours=1)
    stage.clock._end_session(session, stage.bench.clock())
    assert len(stage.attempts()) == 2


def test_the_clock_does_not_live_on_without_its_poller(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_TICK_SECONDS", 0.01)
    polling: Future[None] = Future()
    polling.set_exception(RuntimeError("the poller ended"))
    assert keep_time(stage.clock, polling, threading.Event()) is False


def test_a_process_whose_poller_ends_ends_with_a_status_that_says_so(tmp_path: Path) -> None:
    """Though a thread of it hangs for ever."""
    program = """
import asyncio, threading
from workers import schedule
async def run(self, stop):
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    raise TypeError("a defect")
schedule.Poller.run = run
schedule.main()
"""
    with short_directory() as runtime:
        settings = Settings(state_dir=tmp_path / "state", runtime_dir=runtime)
        prepare_installation(settings)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={
                **settings.environment(),
                "MANAGED_RUNTIME_DIR": str(runtime),
                "MANAGED_S3_ENDPOINT": "http://127.0.0.1:9",
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1, done.stderr
    assert "poller_ended" in done.stdout + done.stderr
