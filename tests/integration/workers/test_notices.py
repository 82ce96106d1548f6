"""Who is told of what, once, over a real SMTP server and real HTTP."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import date, timedelta
from email.message import EmailMessage

import pytest
from sqlalchemy import func, select

from managed.domain.errors import CommandFailed, ServerUnreachable
from managed.domain.jobs import JobKind, JobStatus, RetryPolicy
from managed.domain.notifications import Occasion, TargetKind, Telling
from managed.domain.windows import Window, WindowOwner
from managed.storage.database import writing
from managed.storage.incidents import note
from managed.storage.tables import notification_targets, notifications
from managed.workflows.steps import StepContext
from tests.support.jobs import step
from tests.support.notification_stage import ANNA, BERT, PLAN, Stage, stage
from workers.notices import Notices
from workers.openings import Openings
from workers.surveys import Surveys

__all__ = ["stage"]


def body(mail: EmailMessage) -> str:
    text: str = mail.get_content()
    return text


# -- what is told, and once


def test_a_failed_job_makes_one_mail_and_one_call(stage: Stage) -> None:
    stage.add_mail()
    stage.add_webhook()
    job_id = stage.end(kind=JobKind.BACKUP)
    stage.tell()
    stage.bench.clock.pass_time(days=1)
    stage.tell()

    (mail,) = stage.mailbox.mails
    assert mail["Subject"] == "managed: backup of one failed"
    assert stage.mailbox.recipients == [["ops@example.org"]]
    assert f"https://managed.example.org/panel/jobs/{job_id}" in body(mail)
    (call,) = stage.receiver.calls
    (event,) = call.document["events"]
    assert (event["occasion"], event["job_id"]) == ("job-failed", job_id)
    assert stage.statuses() == [Telling.SENT, Telling.SENT]


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.CANCELLED])
def test_what_went_well_and_what_was_cancelled_is_not_told(stage: Stage, status: JobStatus) -> None:
    stage.add_mail()
    stage.add_webhook()
    stage.end(status)
    stage.tell()
    assert (stage.mailbox.mails, stage.receiver.calls, stage.statuses()) == ([], [], [])


def test_a_missed_window_is_told_once_however_often_the_clock_looks(stage: Stage) -> None:
    opens = stage.now.replace(hour=2, minute=0)
    stage.add_customers(ANNA)
    with writing(stage.bench.database) as connection:
        stage.installation.customers.add_plan(connection, PLAN, stage.now)
    stage.add_server_of(ANNA, "two", PLAN)
    stage.add_mail()
    window = Window(
        "w", WindowOwner.PLAN, PLAN.plan_id, JobKind.PATCH, "FREQ=DAILY;BYHOUR=2", "UTC", 120,
        date(2026, 1, 1), stage.now,
    )  # fmt: skip
    with writing(stage.bench.database) as connection:
        stage.installation.windows.add(connection, window)
    stage.bench.clock.now = opens + timedelta(hours=2)
    for _ in range(2):
        surveys = Surveys(stage.installation)
        Openings(stage.installation, surveys, lambda _: None).record_missed(stage.now)
        stage.tell()
        stage.bench.clock.pass_time(minutes=10)

    (mail,) = stage.mailbox.mails
    assert mail["Subject"] == "managed: no patch of two in its window"
    assert "no survey had ended while it was open" in body(mail)


def test_only_what_somebody_asked_for_is_told(stage: Stage) -> None:
    stage.add(TargetKind.EMAIL, "ops@example.org", occasions=frozenset({Occasion.WINDOW_MISSED}))
    stage.end()
    stage.tell()
    assert stage.mailbox.mails == []


def test_what_was_before_is_not_told(stage: Stage) -> None:
    stage.end()
    stage.add_mail()
    stage.tell()
    assert stage.mailbox.mails == []


def test_a_customer_is_told_of_own_servers_only_and_without_our_details(stage: Stage) -> None:
    stage.add_customers(ANNA, BERT)
    annas, berts = stage.add_server_of(ANNA, "annas"), stage.add_server_of(BERT, "berts")
    stage.add_mail(ANNA.email, ANNA)
    stage.add_mail(BERT.email, BERT)

    def fail(_: StepContext) -> None:
        raise CommandFailed("node-7 says no", hint="Look at /srv/secret-place.")

    stage.bench.workflow(step("update", fail))
    stage.bench.engine().run(stage.bench.submit(server_id=annas).job_id)
    stage.end()
    stage.tell()

    (mail,) = stage.mailbox.mails
    assert stage.mailbox.recipients == [[ANNA.email]]
    assert "A command failed" in body(mail)
    assert "node-7" not in body(mail)
    assert "secret-place" not in body(mail)
    stage.end(server_id=berts)
    stage.tell()
    assert stage.mailbox.recipients == [[ANNA.email], [BERT.email]]
    assert "annas" not in body(stage.mailbox.mails[1])


# -- spent budgets


def fail_with(error: Exception) -> Callable[[StepContext], None]:
    def fail(_: StepContext) -> None:
        raise error

    return fail


def run_to_its_end(stage: Stage, retry: RetryPolicy, error: Exception, **pause: float) -> None:
    stage.bench.workflow(step("update", fail_with(error), retry=retry))
    job = stage.bench.submit()
    while not stage.bench.queue.job(job.job_id).status.is_final:
        stage.bench.engine().run(job.job_id)
        stage.bench.clock.pass_time(**pause)


def test_used_up_tries_are_told_with_the_error_and_what_to_do(stage: Stage) -> None:
    class Flaky(CommandFailed):
        retryable = True

    stage.add_mail()
    error = Flaky("apt-get ended with status 100", hint="Look at its sources.")
    run_to_its_end(stage, RetryPolicy(attempts=2), error, minutes=1)
    stage.tell()
    told = body(stage.mailbox.mails[0])
    assert stage.mailbox.mails[0]["Subject"] == "managed: patch of one failed in step update"
    for words in (
        "all 2 attempts are used up",
        "A command failed: apt-get ended with status 100",
        "Look at its sources.",
    ):
        assert words in told


def test_used_up_patience_with_an_outage_is_told(stage: Stage) -> None:
    stage.add_mail()
    patience = RetryPolicy(patience=timedelta(minutes=5))
    run_to_its_end(stage, patience, ServerUnreachable("one is silent"), minutes=2)
    stage.tell()
    assert "there was no answer for 300 seconds" in body(stage.mailbox.mails[0])


def test_used_up_time_is_told(stage: Stage) -> None:
    stage.add_mail()
    patience = RetryPolicy(patience=timedelta(days=1))
    run_to_its_end(stage, patience, ServerUnreachable("one is silent"), minutes=61)
    stage.tell()
    assert "the job's time is used up" in body(stage.mailbox.mails[0])


# -- not too often


def test_a_night_of_three_hundred_failures_makes_two_mails(stage: Stage) -> None:
    stage.add_mail()
    stage.end()
    stage.tell()
    with writing(stage.bench.database) as connection:
        note(connection, [stage.incident(number) for number in range(299)])
    for _ in range(6):
        stage.tell()
        stage.bench.clock.pass_time(minutes=1)

    first, digest = stage.mailbox.mails
    assert first["Subject"] == "managed: patch of one failed"
    assert digest["Subject"] == "managed: 299 failed jobs on 1 server"
    stage.bench.clock.pass_time(days=1)
    stage.tell()
    assert len(stage.mailbox.mails) == 2


# -- targets that go


def test_a_removed_target_is_told_nothing_and_leaves_nothing(stage: Stage) -> None:
    target_id = stage.add_mail()
    stage.end()
    with writing(stage.bench.database) as connection:
        stage.installation.targets.remove(connection, target_id)
    stage.tell()
    stage.end()
    with writing(stage.bench.database) as connection:
        for table in (notifications, notification_targets):
            assert connection.execute(select(func.count()).select_from(table)).scalar() == 0
    assert stage.mailbox.mails == []


def test_what_was_told_long_ago_is_forgotten(stage: Stage) -> None:
    stage.add_mail()
    stage.end()
    stage.tell()
    notices = Notices(stage.installation)
    notices.forget(stage.now + timedelta(days=89))
    assert stage.statuses() == [Telling.SENT]
    notices.forget(stage.now + timedelta(days=91))
    assert stage.statuses() == []


def test_a_job_ends_also_while_its_last_listener_is_being_removed(stage: Stage) -> None:
    target_id = stage.add_mail()
    with ThreadPoolExecutor(1) as worker:
        with writing(stage.bench.database) as connection:
            stage.installation.targets.remove(connection, target_id)
            ending = worker.submit(stage.end)
            # Long enough to come to the lock; however it falls out, the job has to end.
            wait([ending], timeout=0.3)
        job_id = ending.result(timeout=30)
    assert stage.bench.queue.job(job_id).status is JobStatus.FAILED
    assert stage.statuses() == []


def test_of_several_clocks_at_once_one_tells(stage: Stage) -> None:
    stage.add_mail()
    stage.add_webhook()
    stage.end()
    with ThreadPoolExecutor(4) as clocks:
        for told in [clocks.submit(stage.tell) for _ in range(4)]:
            told.result(timeout=30)
    assert (len(stage.mailbox.mails), len(stage.receiver.calls)) == (1, 1)
