"""What a dead receiver, a dead mail server and a killed clock cost those who are to be told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from managed.domain.notifications import Incident, Occasion, Telling
from managed.storage.database import writing
from managed.storage.incidents import note
from managed.wiring import Installation
from tests.support.notification_stage import Stage, stage
from tests.support.waiting import wait_until
from workers.notices import Notices
from workers.schedule import Clock

__all__ = ["stage"]

_ROOT = Path(__file__).parents[3]


def test_a_receiver_that_is_down_is_called_again_under_the_same_id(stage: Stage) -> None:
    stage.add_mail()
    stage.add_webhook()
    stage.receiver.status = 503
    stage.end()
    stage.tell()
    stage.tell()
    assert len(stage.mailbox.mails) == 1, "others are told at once"
    assert len(stage.receiver.calls) == 1, "not before its time"
    failed = stage.installation.notifications.find(status=Telling.WAITING)
    assert [(one.attempts, one.last_error) for one in failed] == [
        (1, "the webhook answered with HTTP status 503")
    ]

    stage.receiver.status = 200
    stage.bench.clock.pass_time(minutes=1)
    stage.tell()
    first, second = stage.receiver.calls
    assert first == second
    assert stage.statuses() == [Telling.SENT, Telling.SENT]


def test_what_happens_while_a_receiver_is_down_comes_when_it_is_back(stage: Stage) -> None:
    stage.add_webhook()
    stage.receiver.status = 500
    stage.end()
    stage.tell()
    stage.end()
    stage.tell()
    stage.receiver.status = 200
    for _ in range(10):
        stage.bench.clock.pass_time(minutes=1)
        stage.tell()
    events = [len(call.document["events"]) for call in stage.receiver.calls]
    assert events == [1, 1, 1]
    assert len({call.delivery_id for call in stage.receiver.calls}) == 2


def test_after_two_days_it_is_given_up_and_can_be_seen(stage: Stage) -> None:
    stage.add_mail()
    stage.mailbox.answer = "550 no such user"
    stage.end()
    for _ in range(3):
        stage.tell()
        stage.bench.clock.pass_time(days=1)
    (given_up,) = stage.installation.notifications.find(status=Telling.GIVEN_UP)
    assert "550 no such user" in given_up.last_error
    stage.mailbox.answer = "250 OK"
    stage.tell()
    assert stage.mailbox.mails == []
    stage.end()
    stage.bench.clock.pass_time(hours=1)
    stage.tell()
    assert len(stage.mailbox.mails) == 1, "what comes after it is told"


def test_a_clock_killed_after_the_call_and_before_its_note_calls_again_with_the_same_id(
    stage: Stage, database_url: str
) -> None:
    stage.add_webhook()
    stage.end()
    clock: list[subprocess.Popen[bytes]] = []
    told_time = stage.receiver.now

    def kill_the_clock() -> float:
        os.kill(clock[0].pid, signal.SIGKILL)
        clock[0].wait()
        return told_time()

    stage.receiver.now = kill_the_clock
    environment = stage.settings.environment()
    command = [sys.executable, "-m", "tests.support.notices_process"]
    arguments = [database_url, stage.now.isoformat()]
    clock.append(subprocess.Popen([*command, *arguments], env=environment, cwd=_ROOT))
    wait_until(lambda: stage.receiver.calls, timeout=60, what="the call came")
    assert clock[0].returncode == -signal.SIGKILL
    stage.receiver.now = told_time
    stage.tell()
    assert len(stage.receiver.calls) == 1, "the killed one may still be at it"

    stage.bench.clock.pass_time(minutes=5)
    stage.tell()
    stage.tell()

    first, second = stage.receiver.calls
    assert first == second
    assert stage.statuses() == [Telling.SENT]


def test_a_silent_mail_server_holds_up_neither_the_clock_nor_webhooks(stage: Stage) -> None:
    stage.add_mail()
    stage.add_webhook()
    stage.end()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = stage.settings.model_copy(update={"smtp_port": silent.getsockname()[1]})
        installation = Installation(settings, stage.bench.database, stage.bench.clock)
        clock = Clock(installation)
        clock.tick()
        connected, _ = silent.accept()
        with connected:
            wait_until(lambda: stage.receiver.calls, timeout=30, what="the webhook is called")
            clock.tick()
            waiting = installation.notifications.find(status=Telling.WAITING)
            assert [one.attempts for one in waiting] == [1], "the mail is still being tried"
        wait_until(
            lambda: installation.notifications.find(status=Telling.WAITING)[0].last_error,
            timeout=30,
            what="the mail server has been given up for now",
        )


def test_a_message_that_cannot_be_made_is_a_failed_try_and_keeps_no_other_back(
    stage: Stage,
) -> None:
    stage.add_mail()
    with writing(stage.bench.database) as connection:
        odd = Incident(Occasion.JOB_FAILED, stage.bench.server_id, "odd", stage.now, {})
        note(connection, [odd])
    stage.add_webhook()
    stage.end()
    stage.tell()
    assert len(stage.receiver.calls) == 1
    errors = {one.last_error for one in stage.installation.notifications.find()}
    assert errors == {"", "a defect in managed; the clock's log tells more"}


def test_mails_without_a_mail_server_wait_for_one(stage: Stage) -> None:
    stage.add_mail()
    stage.end()
    without = stage.settings.model_copy(update={"smtp_host": ""})
    installation = Installation(without, stage.bench.database, stage.bench.clock)
    Notices(installation, start=lambda work: work()).tell(stage.now)
    (waiting,) = installation.notifications.find(status=Telling.WAITING)
    assert "MANAGED_SMTP_HOST" in waiting.last_error
    stage.bench.clock.pass_time(minutes=1)
    stage.tell()
    assert len(stage.mailbox.mails) == 1
