"""Nothing to do is said only with proof; whatever else is found starts the job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from managed.domain.jobs import JobKind
from managed.domain.surveys import (
    Finding,
    NextMove,
    SurveyOutcome,
    finding_of,
    next_move,
    unknown,
)
from tests.support.surveys import nothing_to_do, update

NOW = datetime(2026, 4, 1, 2, tzinfo=UTC)


def found(asked_for_security: bool = False, **changes: Any) -> Finding:
    """Of a document that proves that there is nothing to do, but for these changes; what is None is
    left out.
    """
    document = {**nothing_to_do(NOW), **changes}
    given = {name: value for name, value in document.items() if value is not None}
    return finding_of(given, asked_for_security, NOW)


def test_everything_proven_is_nothing_to_do() -> None:
    finding = found()
    assert finding.outcome is SurveyOutcome.NOTHING_TO_DO
    assert finding.detail == "everything is up to date"
    assert finding.found["lists_fetched_at"] == "2026-04-01T02:00:00+00:00"
    assert finding.found["newest_release_at"] == "2026-03-28T02:53:00+00:00"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pending": [update("a")]}, "1 update, 0 of them for security"),
        (
            {"pending": [update("a"), update("b", security=True)]},
            "2 updates, 1 of them for security",
        ),
        ({"damaged": ["shop"]}, "half unpacked: shop"),
        ({"audit": ["The following packages are only half configured", "shop"]}, "dpkg is not"),
        ({"unfinished_patch": True}, "an earlier patch"),
        ({"reboot": {"needed": True, "reasons": ["a new kernel"]}}, "needed: a new kernel"),
        ({"reboot": {"needed": True, "reasons": None}}, "a reboot is needed"),
    ],
)
def test_each_kind_of_work_is_work_and_is_said(changes: dict[str, Any], said: str) -> None:
    finding = found(**changes)
    assert finding.outcome is SurveyOutcome.WORK
    assert said in finding.detail


def test_work_is_work_also_when_the_lists_could_not_be_fetched() -> None:
    finding = found(damaged=["shop"], lists=None, pending=None, error={"detail": "no mirror"})
    assert finding.outcome is SurveyOutcome.WORK


def test_updates_that_stay_back_are_named_beside_nothing_to_do() -> None:
    finding = found(held=["vim"], kept_back=["php", "php-cli"])
    assert finding.outcome is SurveyOutcome.NOTHING_TO_DO
    assert finding.detail == "everything is up to date; on hold: vim; kept back: php, php-cli"
    assert finding.found["kept_back"] == ["php", "php-cli"]


@pytest.mark.parametrize(
    "name",
    ["pending", "damaged", "audit", "held", "kept_back", "unfinished_patch", "reboot", "lists"],
)
@pytest.mark.parametrize("value", [None, "odd", 7, {"odd": "odd"}])
def test_what_is_missing_or_odd_proves_nothing(name: str, value: Any) -> None:
    assert found(**{name: value}).outcome is SurveyOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"indexes": 0}, "are there sources"),
        ({"indexes": None}, "are there sources"),
        ({"updated_at": "yesterday"}, "does not say when"),
        ({"updated_at": "2026-04-01T02:00:00"}, "does not say when"),
        ({"updated_at": "2026-04-01T00:59:59Z"}, "its clock is wrong"),
        ({"updated_at": "2026-04-01T03:00:01Z"}, "its clock is wrong"),
        ({"updated_at": "2026-04-01T05:30:00+02:00"}, "at 2026-04-01 03:30:00 UTC"),
        ({"updated_at": "9999-12-31T23:59:59-23:59"}, "does not say when"),
    ],
)
def test_lists_that_were_not_fetched_now_prove_nothing(lists: dict[str, Any], said: str) -> None:
    finding = found(lists={**nothing_to_do(NOW)["lists"], **lists})
    assert finding.outcome is SurveyOutcome.UNKNOWN
    assert said in finding.detail


@pytest.mark.parametrize("number", [0, None, "2", {}])
def test_without_a_source_of_security_updates_a_plan_of_these_alone_proves_nothing(
    number: Any,
) -> None:
    lists = {**nothing_to_do(NOW)["lists"], "security_indexes": number}
    assert found(lists=lists).outcome is SurveyOutcome.NOTHING_TO_DO
    finding = found(True, only_security=True, lists=lists)
    assert finding.outcome is SurveyOutcome.UNKNOWN
    assert finding.detail == "it has no source of security updates"


@pytest.mark.parametrize(
    "error", [{"code": "unavailable", "detail": "the lock was not free"}, {}, [], "no", 0]
)
def test_an_error_is_no_proof_whatever_stands_beside_it(error: Any) -> None:
    assert found(error=error).outcome is SurveyOutcome.UNKNOWN


def test_the_error_is_the_reason() -> None:
    assert found(error={"detail": "the lock\nwas not free"}).detail == "the lock was not free"


def test_an_answer_to_another_question_proves_nothing() -> None:
    """All updates were asked for, and only those for security were looked at; or the other way."""
    assert found(True).outcome is SurveyOutcome.UNKNOWN
    assert found(only_security=True).outcome is SurveyOutcome.UNKNOWN
    assert found(True, only_security=True).outcome is SurveyOutcome.NOTHING_TO_DO


def test_what_a_hostile_root_writes_is_kept_small() -> None:
    names = [f"\x1b[31m{'x' * 5000}\n{number}" for number in range(5000)]
    releases = [{"date": "Sat, 99 Foo 2026"}, {"date": 7}, 7, {"date": "Thu, 01 Jan 0001 00:00"}]
    lists = {"updated_at": "9999-12-31T23:59:59-23:59", "indexes": 1, "releases": releases}
    finding = found(damaged=names, held=names, pending=[7, None], lists=lists)
    assert finding.outcome is SurveyOutcome.WORK
    assert len(finding.detail) <= 300
    assert len(str(finding.found)) < 10_000
    assert "\x1b" not in str(finding)
    damaged = finding.found["damaged"]
    assert isinstance(damaged, list)
    assert len(damaged) == 20


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["damaged", "held", "kept_back", "reboot", "error"])
def test_what_a_hostile_root_writes_takes_no_time(name: str) -> None:
    """A megabyte of marks, each of which changes places with the others when text is composed: it
    would be minutes for all of it.
    """
    marks = "a" + "\u0301\u0316" * 262_144
    written: dict[str, Any] = {
        "error": {"detail": marks},
        "reboot": {"needed": True, "reasons": [marks]},
    }
    finding = found(**{name: written.get(name, [marks])})
    assert len(finding.detail) <= 300
    assert len(str(finding.found)) < 1_000


def test_of_many_names_the_first_are_told_and_how_many_more_there_are() -> None:
    finding = found(held=[f"p{number}" for number in range(23)])
    assert finding.detail.endswith("p18, p19 and 3 more")
    assert finding.found["held"] == [f"p{number}" for number in range(20)]


def test_a_reason_is_one_line() -> None:
    assert unknown(f"it said\n{'x' * 5000}").detail.startswith("it said xxx")
    assert len(unknown("x" * 5000).detail) == 300


def test_a_window_asks_first_and_then_goes_by_the_answer() -> None:
    moves = {outcome: next_move(JobKind.PATCH, outcome) for outcome in (None, *SurveyOutcome)}
    assert moves == {
        None: NextMove.ASK,
        SurveyOutcome.NOTHING_TO_DO: NextMove.LEAVE,
        SurveyOutcome.WORK: NextMove.START,
        SurveyOutcome.UNKNOWN: NextMove.START,
    }


def test_a_backup_always_has_work() -> None:
    assert next_move(JobKind.BACKUP, None) is NextMove.START


def test_a_clock_within_an_hour_is_near_enough() -> None:
    for minutes in (-59, 59):
        at = (NOW + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        lists = {**nothing_to_do(NOW)["lists"], "updated_at": at}
        assert found(lists=lists).outcome is SurveyOutcome.NOTHING_TO_DO
