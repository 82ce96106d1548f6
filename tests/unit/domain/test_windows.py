"""When windows open, in every zone, and whose window counts."""

from __future__ import annotations

import time as clock
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from managed.domain.errors import InvalidInput
from managed.domain.jobs import JobKind
from managed.domain.windows import (
    Covered,
    NearestWindows,
    Window,
    WindowOwner,
    can_be_followed,
    checked_minutes,
    checked_rule,
    checked_zone,
    first_day_of_rules,
    next_opening,
    open_now,
    openings,
    rule_limitation,
)

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 4, 9, tzinfo=UTC)
NIGHTLY = Window(
    window_id="w",
    owner=WindowOwner.PLAN,
    owner_id="plan",
    job_kind=JobKind.PATCH,
    rule="FREQ=DAILY;BYHOUR=2;BYMINUTE=30",
    zone="Europe/Berlin",
    minutes=120,
    starts_on=date(2026, 1, 1),
    created_at=CREATED,
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def starts(window: Window, after: str, until: str) -> list[str]:
    return [f"{o.starts_at:%m-%d %H:%M}" for o in openings(window, at(after), at(until))]


def test_a_night_is_the_zones_own() -> None:
    assert starts(NIGHTLY, "2026-01-09", "2026-01-11") == ["01-09 01:30", "01-10 01:30"]
    assert starts(replace(NIGHTLY, zone="America/New_York"), "2026-07-09", "2026-07-10") == [
        "07-09 06:30"
    ]
    assert starts(replace(NIGHTLY, zone="Pacific/Kiritimati"), "2026-07-09", "2026-07-10") == [
        "07-09 12:30"
    ]


def test_a_start_that_clocks_skip_comes_later_and_one_that_comes_twice_comes_once() -> None:
    """On 29 March 2026 it goes from 02:00 to 03:00, on 25 October from 03:00 back to 02:00."""
    assert starts(NIGHTLY, "2026-03-28T12:00", "2026-03-30") == ["03-29 01:30"]
    assert starts(NIGHTLY, "2026-10-24T12:00", "2026-10-26") == ["10-25 00:30"]
    both = replace(NIGHTLY, rule="FREQ=DAILY;BYHOUR=2,3;BYMINUTE=30")
    assert starts(both, "2026-03-28T12:00", "2026-03-29T12:00") == ["03-29 01:30"]


def test_a_window_is_open_from_its_start_to_just_before_its_end() -> None:
    assert open_now(NIGHTLY, at("2026-01-09T01:29:59")) is None
    opening = open_now(NIGHTLY, at("2026-01-09T01:30"))
    assert opening is not None
    assert opening == open_now(NIGHTLY, at("2026-01-09T03:29:59"))
    assert open_now(NIGHTLY, at("2026-01-09T03:30")) is None
    assert opening.run_key == "clock:window:2026-01-09T01:30:00Z"


def test_it_stays_open_for_real_minutes_whatever_clocks_do() -> None:
    long = replace(NIGHTLY, rule="FREQ=DAILY;BYHOUR=1", minutes=180)
    opening = open_now(long, at("2026-03-29T02:59"))
    assert opening is not None
    assert opening.ends_at - opening.starts_at == timedelta(hours=3)


def test_an_opening_that_began_before_the_window_was_made_does_not_count() -> None:
    late = replace(NIGHTLY, created_at=at("2026-01-09T02:00"))
    assert open_now(late, at("2026-01-09T02:01")) is None
    assert starts(late, "2026-01-01", "2026-01-11") == ["01-10 01:30"]


def test_the_next_opening_is_told() -> None:
    sundays = replace(NIGHTLY, rule="FREQ=WEEKLY;BYDAY=SU;BYHOUR=3")
    opening = next_opening(sundays, at("2026-01-05"))
    assert opening is not None
    assert opening.starts_at == at("2026-01-11T02:00")
    leap_days = replace(NIGHTLY, rule="FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=2")
    opening = next_opening(leap_days, at("2026-01-05"))
    assert opening is not None
    assert opening.starts_at == at("2028-02-29T01:00")
    later = replace(NIGHTLY, starts_on=date(2099, 12, 1))
    opening = next_opening(later, at("2026-01-05"))
    assert opening is not None
    assert opening.starts_at == at("2099-12-01T01:30")


def test_why_a_window_opens_no_more_is_told() -> None:
    ended = replace(NIGHTLY, rule="FREQ=DAILY;COUNT=2;BYHOUR=2")
    assert next_opening(ended, at("2026-02-01")) is None
    assert (
        rule_limitation(ended, at("2026-02-01"))
        == "its rule has no start within the next nine years"
    )
    assert rule_limitation(NIGHTLY, at("2026-02-01")) is None


def test_a_rule_that_an_earlier_version_took_opens_nothing_and_is_no_error() -> None:
    doubled = replace(NIGHTLY, rule="FREQ=DAILY;BYHOUR=2;BYHOUR=3")
    assert starts(doubled, "2026-01-09", "2026-01-11") == []
    assert next_opening(doubled, at("2026-01-09")) is None
    assert "cannot be followed" in (rule_limitation(doubled, at("2026-01-09")) or "")


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "FREQ=DAILY;COUNT=2;UNTIL=20270101"},
        {"rule": "FREQ=WEEKLY;WKST=SU;COUNT=5", "starts_on": date(1, 1, 1)},
        {"rule": "FREQ=DAILY;COUNT=5", "starts_on": date(1999, 12, 31)},
        {"rule": "FREQ=DAILY", "starts_on": date(2100, 1, 1)},
        {"rule": "FREQ=WEEKLY;BYDAY=MO", "starts_on": date(9990, 12, 28)},
        {"rule": "FREQ=WEEKLY;WKST=SU", "starts_on": date(9999, 12, 31)},
        {"zone": "Mars/Olympus"},
        {"zone": "../etc/passwd"},
        {"zone": "Europe"},
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_no_error_and_said(changes: dict[str, Any]) -> None:
    stored = replace(NIGHTLY, **changes)
    assert open_now(stored, NOW) is None
    assert openings(stored, CREATED, NOW) == ()
    assert next_opening(stored, NOW) is None
    assert not can_be_followed(stored)
    assert "cannot be followed" in (rule_limitation(stored, NOW) or "")


@pytest.mark.parametrize("rule", ["FREQ=DAILY;INTERVAL=3", "FREQ=WEEKLY;WKST=SU", "FREQ=MONTHLY"])
@pytest.mark.parametrize("starts_on", [date(1, 1, 1), date(1970, 1, 1), date(1999, 12, 31)])
def test_a_rule_that_counts_from_long_ago_is_followed(rule: str, starts_on: date) -> None:
    """The API once took any day."""
    stored = replace(NIGHTLY, rule=rule, starts_on=starts_on)
    assert can_be_followed(stored)
    opening = next_opening(stored, NOW)
    assert opening is not None
    assert open_now(stored, opening.starts_at) == opening


def test_rules_count_from_today_on_the_clock_of_their_zone() -> None:
    evening = at("2026-01-04T20:00")
    assert first_day_of_rules("UTC", evening) == date(2026, 1, 4)
    assert first_day_of_rules("Pacific/Auckland", evening) == date(2026, 1, 5)


def test_windows_of_many_rules_days_and_zones_cost_little() -> None:
    """Each made on another day: a look must not depend on what was looked at before."""
    windows = [
        replace(
            NIGHTLY,
            rule=f"FREQ=DAILY;BYHOUR={number % 24};BYMINUTE={number % 60}",
            starts_on=date(2000, 1, 1) + timedelta(days=number),
        )
        for number in range(3000)
    ]
    began = clock.process_time()
    for window in windows:
        openings(window, at("2026-11-29"), at("2026-12-01"))
    assert clock.process_time() - began < 3


@pytest.mark.parametrize(
    ("owners", "chosen"),
    [
        ({"server", "customer", "plan"}, "server"),
        ({"customer", "plan"}, "customer"),
        ({"plan"}, "plan"),
        (set(), None),
    ],
)
def test_the_nearest_window_wins(owners: set[str], chosen: str | None) -> None:
    windows = [
        replace(NIGHTLY, owner=WindowOwner(owner), owner_id=owner, window_id=owner)
        for owner in sorted(owners)
    ]
    others = [
        replace(NIGHTLY, owner=WindowOwner.SERVER, owner_id="another"),
        replace(NIGHTLY, owner=WindowOwner.SERVER, owner_id="server", job_kind=JobKind.BACKUP),
    ]
    server = Covered("server", "customer", "plan")
    found = NearestWindows([*others, *windows]).of(server, JobKind.PATCH)
    assert (found.window_id if found else None) == chosen


def test_a_server_without_plan_and_customer_has_no_window_of_anybodys() -> None:
    assert NearestWindows([NIGHTLY]).of(Covered("server", None, None), JobKind.PATCH) is None


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("", "not a list"),
        ("every night", "not a list"),
        ("RRULE:FREQ=DAILY", "RRULE:, which is to be left out"),
        ("FREQ=DAILY\nRRULE=X", "not a list"),
        ("BYHOUR=2", "must say FREQ"),
        ("FREQ=HOURLY", "must say FREQ"),
        ("FREQ=DAILY;BYHOUR=25", "BYHOUR must be from 0 to 23"),
        ("FREQ=DAILY;BYHOUR=X", "BYHOUR must be"),
        ("FREQ=DAILY;COLOUR=2", "COLOUR"),
        ("FREQ=DAILY;INTERVAL=0;BYMONTH=2", "INTERVAL must be"),
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "no start"),
        ("FREQ=DAILY;UNTIL=20250101", "no start"),
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=0,30", "less than an hour apart"),
        ("FREQ=DAILY;BYHOUR=0,23;BYMINUTE=0,45;BYSETPOS=1,4", "less than an hour apart"),
        ("FREQ=DAILY;BYHOUR=" + ",".join(["2"] * 300), "longer than 500"),
        ("FREQ=DAILY;BYHOUR=2;COUNT=1", "no start within the next nine years"),
        ("FREQ=DAILY;UNTIL=20260105T005959Z;BYHOUR=2", "no start within the next nine years"),
        ("FREQ=YEARLY;INTERVAL=10", "no start within the next nine years"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(rule: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refusal:
        checked_rule(rule, "Europe/Berlin", date(2026, 1, 1), NOW)
    assert refusal.value.details == {"field": "rule"}


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;BYHOUR=2",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,TH;BYHOUR=23;BYMINUTE=15",
        "FREQ=MONTHLY;BYDAY=2TU;BYHOUR=3",
        "FREQ=MONTHLY;BYMONTHDAY=-1",
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
        "FREQ=DAILY;UNTIL=20261231",
        "FREQ=DAILY;UNTIL=20991231T000000Z",
        "FREQ=DAILY;UNTIL=20260105T010000Z;BYHOUR=2",
        "FREQ=DAILY;BYHOUR=23;COUNT=4",
        "FREQ=DAILY;BYHOUR=2;COUNT=2000",
        "FREQ=DAILY;BYHOUR=2;UNTIL=99991231",
        "FREQ=WEEKLY;BYMONTHDAY=1,15;BYHOUR=2",
    ],
)
def test_sensible_rules_are_taken(rule: str) -> None:
    assert checked_rule(rule, "Europe/Berlin", date(2026, 1, 1), NOW) == rule


@pytest.mark.parametrize("starts_on", [date(1, 1, 1), date(1999, 12, 31), date(9990, 1, 1)])
def test_no_rule_is_taken_that_counts_from_far_away(starts_on: date) -> None:
    with pytest.raises(InvalidInput, match="counts from") as refusal:
        checked_rule("FREQ=DAILY", "UTC", starts_on, NOW)
    assert refusal.value.details == {"field": "starts_on"}


def test_zones_and_lengths_are_checked() -> None:
    assert checked_zone("Asia/Kolkata") == "Asia/Kolkata"
    others = ("localtime", "Factory", "posixrules", "right/Europe/Berlin", "posix/Europe/Berlin")
    for zone in ("Berlin", "", "../etc/passwd", "Europe", *others):
        with pytest.raises(InvalidInput, match="no time zone"):
            checked_zone(zone)
    for minutes in (14, 1441):
        with pytest.raises(InvalidInput, match="window"):
            checked_minutes(minutes)
