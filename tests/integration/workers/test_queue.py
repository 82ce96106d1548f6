"""Telling the workers: what cannot be sent is told later, and holds up nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database

from managed.lab.ports import free_port
from managed.settings import Settings
from managed.wiring import Installation
from tests.support.jobs import JobBench
from workers import queue
from workers.app import celery_app
from workers.queue import send_all

RESEND = timedelta(minutes=1)


class Stage:
    def __init__(self, database: Database) -> None:
        self.bench = JobBench(database)
        self.installation = Installation(Settings(), database, self.bench.clock)
        self.job_ids = [
            self.bench.submit(server_id=self.bench.add_server(name)).job_id
            for name in ("two", "three", "four")
        ]

    def send(self) -> None:
        send_all(self.installation, self.job_ids)

    def to_send(self) -> Sequence[str]:
        """What the clock would send at its next tick."""
        found = self.bench.queue.to_send(self.bench.clock(), RESEND)
        return sorted(found, key=self.job_ids.index)


@pytest.fixture
def stage(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(queue, "app", celery_app(Settings(state_dir=tmp_path)))
    monkeypatch.setattr(queue, "_left_alone_until", 0.0)
    return Stage(database)


def test_what_was_sent_is_sent_again_only_when_nothing_came_of_it(stage: Stage) -> None:
    stage.send()
    assert stage.to_send() == []
    stage.bench.clock.pass_time(minutes=1)
    assert stage.to_send() == stage.job_ids


def test_a_job_whose_worker_died_is_sent_as_soon_as_its_lease_is_over_and_then_in_turn(
    stage: Stage,
) -> None:
    stage.send()
    first, clock = stage.job_ids[0], stage.bench.clock
    assert stage.bench.store.claim(first, "w", clock(), timedelta(seconds=30)) is not None
    clock.pass_time(seconds=29)
    assert stage.to_send() == []
    clock.pass_time(seconds=1)
    assert stage.to_send() == [first]
    send_all(stage.installation, [first])
    clock.pass_time(seconds=29)
    assert stage.to_send() == []
    clock.pass_time(seconds=31)
    assert stage.to_send() == stage.job_ids


def test_a_broker_that_is_away_is_no_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    away = celery_app(Settings(broker_url=f"redis://127.0.0.1:{free_port()}/0"))
    monkeypatch.setattr(queue, "app", away)
    stage.send()
    assert stage.to_send() == stage.job_ids


def test_a_job_that_cannot_be_sent_holds_up_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_task = queue.app.send_task

    def send(name: str, args: list[str], **options: Any) -> None:
        if args == [stage.job_ids[1]]:
            raise TypeError("a defect")
        send_task(name, args=args, **options)

    monkeypatch.setattr(queue.app, "send_task", send)
    stage.send()
    assert stage.to_send() == [stage.job_ids[1]]


def test_a_job_that_was_given_back_meanwhile_is_sent_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may be done with it before the sender has come to its end."""
    first = stage.job_ids[0]

    def send(_name: str, args: list[str], **_options: Any) -> None:
        if args == [first]:
            claimed = stage.bench.store.claim(first, "w", stage.bench.clock(), RESEND)
            assert claimed is not None
            stage.bench.store.release(claimed[0])

    monkeypatch.setattr(queue.app, "send_task", send)
    stage.send()
    assert stage.to_send() == [first]
