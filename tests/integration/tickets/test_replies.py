"""Answers reach the helpdesk: after outages, once, and with what the job has proven."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from managed.domain.jobs import JobStatus
from managed.lab.helpdesk_stand_in import ZammadStandIn
from managed.wiring import utc_now
from tests.integration.tickets.conftest import Desk
from tests.support.waiting import wait_until
from workers import schedule
from workers.replies import TicketReplies

TOKEN = "a token of the tests"
PATCHED: dict[str, dict[str, Any]] = {
    "check_before": {"health": {"kernel": "6.1.0-37-amd64"}},
    "update": {
        "packages_before": {"openssl": "3.0.16", "bash": "5.2"},
        "packages_after": {"openssl": "3.0.17", "bash": "5.2"},
    },
    "reboot": {"rebooted": True},
    "check_after": {"health": {"kernel": "6.1.0-38-amd64"}},
}


@pytest.fixture
def zammad() -> ZammadStandIn:
    """It listens when a test lets it."""
    stand_in = ZammadStandIn(TOKEN, {81, 82})
    with stand_in.serving():
        return stand_in


@pytest.fixture
def settings_changes(zammad: ZammadStandIn) -> dict[str, Any]:
    return {"zammad_url": zammad.url, "zammad_token": SecretStr(TOKEN)}


@pytest.fixture
def listening(zammad: ZammadStandIn) -> Iterator[ZammadStandIn]:
    with zammad.serving():
        yield zammad


def tick(desk: Desk, after: timedelta = timedelta(0)) -> TicketReplies:
    """What a clock that has just been started does, so much later."""
    replies = TicketReplies(desk.installation)
    replies.end_requests(utc_now() + after)
    replies.send(utc_now() + after)
    return replies


def patched(desk: Desk, status: JobStatus = JobStatus.SUCCEEDED, **options: Any) -> str:
    """A request whose job has ended."""
    request_id = str(desk.ask("please update now", **options)["id"])
    steps = {name: dict(result) for name, result in PATCHED.items()}
    if status is not JobStatus.SUCCEEDED:
        steps["check_after"] = {
            "error": {
                "code": "command-failed",
                "title": "A command failed",
                "detail": "s3://managed-backups is at 10.0.0.7",
                "data": {"regressions": ["nothing listens on tcp port 80 any more"]},
            }
        }
    desk.end(desk.approve(request_id).json()["job_id"], status, **steps)
    return request_id


def test_the_result_goes_back_to_the_ticket_with_its_evidence(
    desk: Desk, listening: ZammadStandIn
) -> None:
    request_id = patched(desk)
    assert desk.request(request_id)["status"] == "approved"
    tick(desk)
    shown = desk.request(request_id)
    assert (shown["status"], shown["reply"]["state"]) == ("done", "sent")
    (article,) = listening.articles
    assert (article["ticket_id"], article["type"], article["to"]) == (
        81,
        "email",
        "anna@example.org",
    )
    for told in (
        "Done: updates on shop.",
        "openssl: 3.0.16 -> 3.0.17",
        "Kernel before: 6.1.0-37-amd64. Kernel now: 6.1.0-38-amd64.",
        "nothing is worse than before",
        f"Reference: {request_id}",
    ):
        assert told in article["body"]
    assert "bash" not in article["body"]


def test_the_clock_ends_requests_and_sends_answers(
    desk: Desk, listening: ZammadStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "send", lambda *_: None)
    request_id = patched(desk)
    schedule.Clock(desk.installation).tick()
    wait_until(
        lambda: desk.request(request_id)["reply"]["state"] == "sent",
        timeout=60,
        what="the answer is sent beside the clock's other duties",
    )
    assert len(listening.articles) == 1


def test_a_failure_is_told_without_what_is_ours_alone(desk: Desk, listening: ZammadStandIn) -> None:
    request_id = patched(desk, JobStatus.FAILED)
    tick(desk)
    assert desk.request(request_id)["status"] == "failed"
    (article,) = listening.articles
    assert "failed" in article["body"]
    assert "nothing listens on tcp port 80 any more" in article["body"]
    assert "10.0.0.7" not in article["body"]


def test_a_ticket_from_the_web_is_answered_in_the_ticket(
    desk: Desk, listening: ZammadStandIn
) -> None:
    request = desk.ask("please update now", kind="web")
    desk.refuse(request["id"], "Not covered.")
    tick(desk)
    (article,) = listening.articles
    assert (article["type"], article["internal"]) == ("note", False)
    assert "Not covered." in article["body"]


def test_every_tick_and_every_clock_answers_once(desk: Desk, listening: ZammadStandIn) -> None:
    patched(desk)
    replies = tick(desk)
    for later in range(3):
        replies.send(utc_now() + timedelta(hours=later))
        tick(desk, timedelta(hours=later))
    assert len(listening.articles) == 1


def test_an_outage_is_waited_out(desk: Desk, zammad: ZammadStandIn) -> None:
    request_id = patched(desk)
    replies = tick(desk)
    waiting = desk.request(request_id)
    assert (waiting["status"], waiting["reply"]["state"]) == ("done", "waiting")
    assert "does not answer" in waiting["reply"]["error"]
    with zammad.serving():
        replies.send(utc_now())
        assert zammad.articles == [], "it is left in peace for a while"
        replies.send(utc_now() + timedelta(minutes=1))
    assert len(zammad.of_ticket(81)) == 1
    assert desk.request(request_id)["reply"]["state"] == "sent"


def test_in_an_outage_one_answer_is_tried_and_the_others_come_after(
    desk: Desk, listening: ZammadStandIn
) -> None:
    first = patched(desk)
    second = desk.ask("please update now", sender="bea@example.org", ticket_id=82)
    desk.refuse(second["id"], "Not covered.")
    listening.failing_status = 500
    replies = tick(desk)
    tried = [desk.request(one)["reply"]["attempts"] for one in (first, second["id"])]
    assert sorted(tried) == [0, 1]
    listening.failing_status = 0
    replies.send(utc_now() + timedelta(minutes=1))
    assert len(listening.articles) == 2


def test_an_answer_whose_receipt_was_lost_is_not_sent_again(
    desk: Desk, listening: ZammadStandIn
) -> None:
    request_id = patched(desk)
    listening.loses_answers = True
    tick(desk)
    assert len(listening.articles) == 1
    assert desk.request(request_id)["reply"]["state"] == "waiting"
    listening.loses_answers = False
    tick(desk, timedelta(minutes=5))
    assert desk.request(request_id)["reply"]["state"] == "sent"
    assert len(listening.articles) == 1


def test_a_clock_that_dies_between_sending_and_marking_does_not_answer_twice(
    desk: Desk, listening: ZammadStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = patched(desk)

    class Killed(BaseException):
        """As SIGKILL: nothing is caught, nothing is written after."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(desk.installation.replies, "sent", die)
        with pytest.raises(Killed):
            tick(desk)
    assert len(listening.articles) == 1
    tick(desk)
    assert len(listening.articles) == 1, "the try that was begun has its time"
    tick(desk, timedelta(minutes=3))
    assert len(listening.articles) == 1
    assert desk.request(request_id)["reply"]["state"] == "sent"


def test_two_clocks_at_once_answer_once(desk: Desk, listening: ZammadStandIn) -> None:
    patched(desk)
    TicketReplies(desk.installation).end_requests(utc_now())
    now = utc_now()
    (stored,) = desk.installation.replies.due(now, 5)
    assert desk.installation.replies.begin(stored, now + timedelta(minutes=2))
    assert not desk.installation.replies.begin(stored, now + timedelta(minutes=2))
    tick(desk)
    assert listening.articles == []


def test_a_ticket_that_is_gone_is_given_up_with_the_reason(
    desk: Desk, listening: ZammadStandIn
) -> None:
    request_id = patched(desk)
    listening.tickets.clear()
    tick(desk)
    reply = desk.request(request_id)["reply"]
    assert reply["state"] == "given-up"
    assert "Couldn't find Ticket" in reply["error"]
    listening.tickets.add(81)
    tick(desk, timedelta(days=1))
    assert listening.articles == []


def test_a_wrong_token_is_tried_again_when_it_may_be_mended(
    desk: Desk, listening: ZammadStandIn
) -> None:
    request_id = patched(desk)
    listening.token = "another"
    tick(desk)
    assert desk.request(request_id)["reply"]["state"] == "waiting"
    listening.token = TOKEN
    tick(desk, timedelta(minutes=5))
    assert len(listening.articles) == 1


def test_a_stranger_gets_an_answer_that_tells_nothing(desk: Desk, listening: ZammadStandIn) -> None:
    desk.ask("please restore /etc", sender="mallory@example.com", server="shop")
    tick(desk)
    (article,) = listening.articles
    assert article["to"] == "mallory@example.com"
    assert "shop" not in article["body"]
    assert "/etc" not in article["body"]


def test_old_deliveries_are_forgotten_and_their_articles_are_not(desk: Desk) -> None:
    request = desk.ask("please update now", article_id=7)
    desk.refuse(request["id"], "no")
    TicketReplies(desk.installation).forget_deliveries(utc_now() + timedelta(days=31))
    again = desk.deliver("please update now", article_id=7).json()
    assert again == {"outcome": "known", "request_id": request["id"]}
