"""What messages say, to staff and to customers, and that no server's words steer them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from managed.domain.errors import Json
from managed.domain.jobs import JobKind
from managed.domain.notice_texts import message, trial_message
from managed.domain.notifications import (
    Incident,
    Notice,
    Occasion,
    Target,
    TargetKind,
    missed_window,
)
from managed.domain.windows import Opening
from managed.drivers.notifications.email import mail_of

NOW = datetime(2026, 4, 1, 2, 10, tzinfo=UTC)
STAFF = Target("t-1", TargetKind.EMAIL, "ops@example.org", frozenset(Occasion), None, NOW)
ANNA = replace(STAFF, customer_id="anna")
ERROR: Mapping[str, Json] = {
    "code": "command-failed",
    "title": "A command failed",
    "detail": "apt-get ended with status 100",
    "hint": "Look at its sources.",
}
FACTS: Mapping[str, Json] = {
    "job_id": "j-1",
    "job_kind": "patch",
    "requested_by": "clock",
    "step": "update",
    "error": dict(ERROR),
    "gave_up": "all 5 attempts are used up",
    "not_undone": ["snapshot"],
}
FAILED = Notice("n-1", Incident(Occasion.JOB_FAILED, "s-1", "j-1", NOW, FACTS), "shop")
MISSED = Notice(
    "n-2",
    missed_window(
        "s-2",
        JobKind.BACKUP,
        Opening(NOW, NOW + timedelta(hours=2)),
        "everything was paused by kim: a bad kernel",
        NOW,
    ),
    "blog",
)


def with_facts(**facts: Json) -> Notice:
    return replace(FAILED, incident=replace(FAILED.incident, facts={**FACTS, **facts}))


def events(*notices: Notice, target: Target = STAFF) -> list[dict[str, Any]]:
    document: Any = message(notices, target, "https://managed.example.org").document
    found: list[dict[str, Any]] = document["events"]
    return found


def test_staff_read_all_that_is_known_of_a_failed_job() -> None:
    told = message([FAILED], STAFF, "https://managed.example.org/")
    assert told.subject == "managed: patch of shop failed in step update"
    assert (
        told.text
        == """\
Patch of shop failed in step update.
  when:         2026-04-01 02:10 UTC
  error:        A command failed: apt-get ended with status 100
  given up:     all 5 attempts are used up
  left behind:  what these steps changed could not be taken back: snapshot
  job:          j-1, asked for by clock
  what to do:   Look at its sources.
  look at:      https://managed.example.org/panel/jobs/j-1

-- 
You are told of job-failed, window-missed on all servers. Notification target t-1.
"""
    )


def test_a_missed_window_is_told_with_its_reason() -> None:
    told = message([MISSED], STAFF, "")
    assert told.subject == "managed: no backup of blog in its window"
    assert "  window:       2026-04-01 02:10 UTC to 2026-04-01 04:10 UTC\n" in told.text
    assert "  why:          everything was paused by kim: a bad kernel\n" in told.text
    assert "managed jobs submit blog backup" in told.text
    assert "look at" not in told.text, "there is no link where nobody can follow it"


def test_an_error_without_a_hint_says_where_to_look() -> None:
    told = message([with_facts(error={**ERROR, "hint": "", "detail": ""})], STAFF, "")
    assert "  error:        A command failed\n" in told.text
    assert "managed jobs show j-1" in told.text


def test_a_customer_reads_nothing_of_our_house() -> None:
    told = message([FAILED, MISSED], ANNA, "")
    everything = told.text + json.dumps(told.document)
    assert "A command failed" in everything
    assert "all 5 attempts are used up" in everything
    for word in ("status 100", "sources", "clock", "kim", "kernel", "snapshot:", "jobs submit"):
        assert word not in told.text
    for word in ("status 100", "sources", "requested_by", "kim"):
        assert word not in everything
    assert "on your servers" in told.text


def test_one_incident_of_each_kind_and_many_are_counted_in_the_subject() -> None:
    assert message([FAILED, MISSED], STAFF, "").subject == (
        "managed: 1 failed job and 1 missed window on 2 servers"
    )
    assert message([FAILED] * 12, STAFF, "").subject == "managed: 12 failed jobs on 1 server"


def test_a_long_digest_tells_the_first_in_full_and_each_of_the_rest_in_a_line() -> None:
    told = message([FAILED] * 25, STAFF, "")
    assert told.text.count("what to do:") == 20
    assert told.text.count("\n- patch of shop failed in step update") == 5
    assert len(events(*[FAILED] * 25)) == 25, "a program gets them all"


def test_a_webhook_gets_the_facts() -> None:
    assert events(FAILED) == [
        {
            "id": "n-1",
            "occasion": "job-failed",
            "at": "2026-04-01T02:10:00+00:00",
            "server": {"id": "s-1", "name": "shop"},
            **FACTS,
            "url": "https://managed.example.org/panel/jobs/j-1",
        }
    ]
    (missed,) = events(MISSED)
    assert missed["url"] == "https://managed.example.org/panel/servers/s-2"
    assert events(FAILED, target=ANNA)[0]["error"] == {
        "code": "command-failed",
        "title": "A command failed",
    }


def test_what_a_server_says_makes_no_header_and_no_line_of_its_own() -> None:
    evil = "x\r\nBcc: all@example.org\n  what to do:   pay\x1b[31m\u2028now\x85"
    told = message([with_facts(step=evil, error={**ERROR, "detail": evil})], STAFF, "")
    mail = mail_of("managed@example.org", STAFF.address, told, "d-1", NOW)
    assert mail.keys().count("Bcc") == 0
    assert "Bcc: all@example.org" in mail["Subject"]
    assert told.text.count("\n  what to do: ") == 1
    assert "\x1b" not in told.text
    assert len(told.subject.splitlines()) == 1


def test_long_words_are_cut() -> None:
    told = message([with_facts(error={**ERROR, "detail": "x" * 10_000})], STAFF, "")
    assert max(map(len, told.text.splitlines())) < 1100


def test_a_test_message_says_that_it_is_one() -> None:
    told = trial_message(STAFF)
    assert (told.document["type"], told.document["events"]) == ("test", [])
    assert "Nothing has happened." in told.text
