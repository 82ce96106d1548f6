"""Recurrence rules: read as RFC 5545 has them, followed as dateutil does, with bounded work."""

from __future__ import annotations

import time as clock
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from managed.domain.errors import InvalidInput
from managed.domain.recurrence_rules import rule_of
from managed.domain.recurrences import Recurrence

BERLIN = ZoneInfo("Europe/Berlin")
THURSDAY = date(2026, 1, 1)


def days(rule: str, count: int, starts_on: date = THURSDAY, zone: ZoneInfo = BERLIN) -> list[str]:
    """The first starts, on the wall clock."""
    begin = datetime.combine(starts_on, time(), zone) - timedelta(seconds=1)
    found = Recurrence(rule_of(rule), starts_on, zone).after(begin, timedelta(days=4000))
    return [
        f"{start.astimezone(zone):%y-%m-%d %H:%M}"
        for start, _ in zip(found, range(count), strict=False)
    ]


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("FREQ=DAILY;INTERVAL=2;BYHOUR=2", ["26-01-01 02:00", "26-01-03 02:00", "26-01-05 02:00"]),
        ("FREQ=WEEKLY;BYDAY=SU;BYHOUR=3", ["26-01-04 03:00", "26-01-11 03:00", "26-01-18 03:00"]),
        ("FREQ=WEEKLY", ["26-01-01 00:00", "26-01-08 00:00", "26-01-15 00:00"]),
        ("FREQ=MONTHLY;BYDAY=2TU", ["26-01-13 00:00", "26-02-10 00:00", "26-03-10 00:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", ["26-01-31 00:00", "26-02-28 00:00", "26-03-31 00:00"]),
        (
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
            ["26-01-30 00:00", "26-02-27 00:00", "26-03-31 00:00"],
        ),
        (
            "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
            ["26-02-13 00:00", "26-03-13 00:00", "26-11-13 00:00"],
        ),
        ("FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO", ["27-01-04 00:00", "28-01-03 00:00", "29-01-01 00:00"]),
        ("FREQ=YEARLY;BYWEEKNO=53", ["26-12-31 00:00", "32-12-30 00:00"]),
        ("FREQ=YEARLY;BYYEARDAY=-1", ["26-12-31 00:00", "27-12-31 00:00", "28-12-31 00:00"]),
        (
            "FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10",
            ["26-10-25 00:00", "27-10-31 00:00", "28-10-29 00:00"],
        ),
        # Days that the standard gives no meaning limit those of the others.
        ("FREQ=WEEKLY;BYMONTHDAY=1,15", ["26-01-01 00:00", "26-01-15 00:00", "26-02-01 00:00"]),
        ("FREQ=MONTHLY;BYYEARDAY=2,60", ["26-01-02 00:00", "26-03-01 00:00", "27-01-02 00:00"]),
        ("FREQ=DAILY;BYWEEKNO=2", ["26-01-05 00:00", "26-01-06 00:00", "26-01-07 00:00"]),
        ("FREQ=WEEKLY;BYWEEKNO=2,3", ["26-01-08 00:00", "26-01-15 00:00", "27-01-14 00:00"]),
        # Of the first week, too, the whole is chosen from: its Monday was before.
        (
            "FREQ=WEEKLY;BYDAY=MO,SA;BYSETPOS=1",
            ["26-01-05 00:00", "26-01-12 00:00", "26-01-19 00:00"],
        ),
        # A day and one of a month: each of them, though dateutil takes those that are both.
        ("FREQ=MONTHLY;BYDAY=MO,1FR", ["26-01-02 00:00", "26-01-05 00:00", "26-01-12 00:00"]),
    ],
)
def test_rules_are_followed_as_the_standard_has_them(rule: str, found: list[str]) -> None:
    assert days(rule, 3) == found


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("FREQ=DAILY;BYHOUR=2;COUNT=2", ["26-01-01 02:00", "26-01-02 02:00"]),
        ("FREQ=DAILY;BYHOUR=2;UNTIL=20260102", ["26-01-01 02:00", "26-01-02 02:00"]),
        ("FREQ=DAILY;BYHOUR=2;UNTIL=20260102T010000Z", ["26-01-01 02:00", "26-01-02 02:00"]),
        ("FREQ=DAILY;BYHOUR=2;UNTIL=20260102T005959Z", ["26-01-01 02:00"]),
        ("FREQ=DAILY;BYHOUR=2;UNTIL=20260102T020000", ["26-01-01 02:00", "26-01-02 02:00"]),
        ("FREQ=DAILY;BYHOUR=2;UNTIL=20260102T015959", ["26-01-01 02:00"]),
    ],
)
def test_a_rule_ends_with_its_count_its_last_day_or_its_last_moment(
    rule: str, found: list[str]
) -> None:
    assert days(rule, 9) == found


@pytest.mark.parametrize(
    "end", ["UNTIL=99991231", "UNTIL=99991231T235959Z", "UNTIL=21000101T000000", "COUNT=999999"]
)
def test_an_end_after_the_calendar_of_the_service_is_none(end: str) -> None:
    rule = rule_of(f"FREQ=DAILY;BYHOUR=2;{end}")
    for zone in (BERLIN, ZoneInfo("Pacific/Kiritimati"), ZoneInfo("America/New_York")):
        assert len(Recurrence(rule, THURSDAY, zone).on(date(2099, 12, 31))) == 1


def test_many_starts_are_counted() -> None:
    recurrence = Recurrence(rule_of("FREQ=DAILY;BYHOUR=2;COUNT=2000"), THURSDAY, BERLIN)
    last = THURSDAY + timedelta(days=1999)
    assert recurrence.on(last)
    assert not recurrence.on(last + timedelta(days=1))


def test_the_last_moment_tells_the_hour_that_comes_twice_apart() -> None:
    """On 25 October 2026 it is 02:30 at 00:30 and at 01:30 UTC; the first is meant."""
    rule = "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;UNTIL=20261025T011500Z"
    assert days(rule, 9, date(2026, 10, 24)) == ["26-10-24 02:30", "26-10-25 02:30"]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("FREQ=DAILY;FREQ=HOURLY", "FREQ is there twice"),
        ("FREQ=DAILY;INTERVAL=5;INTERVAL=7", "INTERVAL is there twice"),
        ("FREQ=DAILY;BYHOUR=2;BYHOUR=3", "BYHOUR is there twice; .* commas"),
        ("FREQ=YEARLY;BYEASTER=0", "there is no BYEASTER; there are FREQ"),
        ("RRULE:FREQ=DAILY", "RRULE:, which is to be left out"),
        ("FREQ=SECONDLY", "must say FREQ"),
        ("FREQ=DAILY;INTERVAL=1000", "INTERVAL must be from 1 to 999"),
        ("FREQ=DAILY;COUNT=0", "COUNT must be from 1 to 999999"),
        ("FREQ=DAILY;COUNT=1000000", "COUNT must be from 1 to 999999"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "COUNT and UNTIL"),
        ("FREQ=DAILY;BYHOUR=24", "BYHOUR must be from 0 to 23, not '24'"),
        ("FREQ=DAILY;BYHOUR=-1", "BYHOUR must be"),
        ("FREQ=DAILY;BYHOUR=1,,2", "BYHOUR must be"),
        ("FREQ=DAILY;BYMONTHDAY=0", "BYMONTHDAY must be from 1 to 31, or from -31 to -1"),
        ("FREQ=DAILY;BYMONTH=13", "BYMONTH must be"),
        ("FREQ=DAILY;BYDAY=XX", "BYDAY must be of MO, TU"),
        ("FREQ=WEEKLY;BYDAY=2MO", "counts in a month or a year"),
        ("FREQ=MONTHLY;BYDAY=0MO", "BYDAY counts from 1"),
        ("FREQ=YEARLY;BYWEEKNO=2;BYDAY=2MO", "without BYWEEKNO"),
        ("FREQ=WEEKLY;WKST=8", "WKST must be"),
        ("FREQ=DAILY;BYSETPOS=366", "BYSETPOS chooses"),
        ("FREQ=DAILY;UNTIL=20261332", "UNTIL must be a day such as"),
        ("FREQ=DAILY;UNTIL=2026-12-31", "UNTIL must be a day such as"),
        ("FREQ=DAILY;UNTIL=19991231T235959Z", "UNTIL must not be before 2000"),
        (
            "FREQ=DAILY;BYHOUR=0,1,2,3,4,5;BYMINUTE=0,10,20,30,40",
            "less than an hour apart",
        ),
    ],
)
def test_what_is_no_rule_is_refused_with_what_to_do(rule: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        rule_of(rule)


HOURS = ",".join(map(str, range(24)))


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYHOUR=2;BYSETPOS=366",
        "FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS=-366;BYMONTH=2",
        "FREQ=YEARLY;INTERVAL=999;COUNT=1000",
        "FREQ=DAILY;COUNT=999999;BYMONTH=2;BYMONTHDAY=29;BYDAY=SU",
        f"FREQ=DAILY;COUNT=999999;BYHOUR={HOURS}",
        f"FREQ=YEARLY;COUNT=999999;BYDAY=MO,SU;BYSETPOS=-1,5;BYHOUR={HOURS}",
        f"FREQ=WEEKLY;COUNT=999999;BYDAY=MO,SU;BYSETPOS=-1,5;BYHOUR={HOURS}",
    ],
)
def test_no_rule_costs_much(rule: str) -> None:
    recurrence = Recurrence(rule_of(rule), date(2000, 1, 1), BERLIN)
    began = clock.process_time()
    list(recurrence.after(datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=9 * 366)))
    assert clock.process_time() - began < 2


def test_a_look_costs_the_same_however_long_ago_a_rule_began() -> None:
    old, new = (
        Recurrence(rule_of("FREQ=DAILY;INTERVAL=2;BYHOUR=2"), starts_on, BERLIN)
        for starts_on in (date(1, 1, 1), date(2026, 1, 1))
    )
    began = clock.process_time()
    for recurrence in (old, new):
        for number in range(1000):
            recurrence.on(date(2026, 6, 1) + timedelta(days=number))
    assert clock.process_time() - began < 1


# ---------------------------------------------------------------- beside dateutil
# Only rules that have starts: without any it goes on to the year 9999.


def lists(name: str, numbers: range, *, most: int = 3) -> st.SearchStrategy[str]:
    chosen = st.lists(st.sampled_from(numbers), min_size=1, max_size=most, unique=True)
    return st.just("") | chosen.map(lambda found: f";{name}=" + ",".join(map(str, found)))


WEEK_DAYS = st.just("") | st.lists(
    st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]), min_size=1, max_size=4, unique=True
).map(lambda found: ";BYDAY=" + ",".join(found))
NUMBERED_DAYS = st.just("") | st.lists(
    st.sampled_from([f"{which}{day}" for which in (1, 2, 5, -1, -2) for day in ("MO", "SA")]),
    min_size=1,
    max_size=3,
    unique=True,
).map(lambda found: ";BYDAY=" + ",".join(found))
COMMON = st.tuples(
    lists("BYMONTH", range(1, 13)),
    st.integers(1, 5).map(lambda number: f";INTERVAL={number}"),
    lists("BYHOUR", range(24), most=2),
    st.sampled_from(["", ";WKST=SU", ";WKST=WE"]),
).map("".join)
RULES = st.one_of(
    st.tuples(st.just("FREQ=DAILY"), lists("BYMONTHDAY", range(-28, 0)), WEEK_DAYS, COMMON),
    st.tuples(
        st.sampled_from(["FREQ=DAILY", "FREQ=MONTHLY"]),
        lists("BYYEARDAY", range(1, 360), most=30),
        COMMON,
    ),
    st.tuples(st.just("FREQ=WEEKLY"), lists("BYMONTHDAY", range(1, 29)), WEEK_DAYS, COMMON),
    st.tuples(
        st.just("FREQ=MONTHLY"),
        lists("BYMONTHDAY", range(1, 32)),
        WEEK_DAYS | NUMBERED_DAYS,
        st.sampled_from(["", ";BYSETPOS=1", ";BYSETPOS=-1,2"]),
        COMMON,
    ),
    st.tuples(
        st.just("FREQ=YEARLY"),
        lists("BYMONTHDAY", range(1, 32)),
        lists("BYYEARDAY", range(-366, 0), most=30),
        WEEK_DAYS | NUMBERED_DAYS,
        COMMON,
    ),
    st.tuples(
        st.just("FREQ=YEARLY"), lists("BYWEEKNO", range(1, 54)), st.just(";BYDAY=TU"), COMMON
    ),
).map("".join)


@settings(deadline=None)
@given(RULES, st.dates(date(2020, 1, 1), date(2027, 1, 1)))
def test_starts_are_those_that_dateutil_finds(rule: str, starts_on: date) -> None:
    if "BYSETPOS" in rule and rule.count(";BY") < 2:
        rule = rule.replace(";BYSETPOS", ";BYHOUR=0;BYSETPOS")
    end = starts_on + timedelta(days=1500)
    ours = Recurrence(rule_of(rule), starts_on, ZoneInfo("UTC")).after(
        datetime.combine(starts_on, time(), UTC) - timedelta(seconds=1), timedelta(days=1500)
    )
    theirs = rrulestr(
        f"{rule};UNTIL={end:%Y%m%d}T235959", dtstart=datetime.combine(starts_on, time())
    )
    assert [start.replace(tzinfo=None) for start in ours] == list(theirs)
