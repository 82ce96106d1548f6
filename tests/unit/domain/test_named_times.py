"""Times in texts, on the clock of a zone, from when the text was written (a Tuesday, 10:30)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain.named_times import named_times

BERLIN = "Europe/Berlin"
WRITTEN = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("as of yesterday 18:00", "2026-11-23 17:00"),
        ("as of yesterday at 6pm", "2026-11-23 17:00"),
        ("as of yesterday at 6:15 p.m.", "2026-11-23 17:15"),
        ("as of yesterday, 12 am", "2026-11-22 23:00"),
        ("at 18:00 yesterday", "2026-11-23 17:00"),
        ("gestern um 18 Uhr", "2026-11-23 17:00"),
        ("gestern 18.30 Uhr", "2026-11-23 17:30"),
        ("um 18 Uhr gestern", "2026-11-23 17:00"),
        ("vorgestern um 7 Uhr", "2026-11-22 06:00"),
        ("the day before yesterday at 07:00", "2026-11-22 06:00"),
        ("2026-11-23 14:00", "2026-11-23 13:00"),
        ("2026-11-23T14:00", "2026-11-23 13:00"),
        ("on 2026-11-23 at 14:00", "2026-11-23 13:00"),
        ("vom 23.11.2026 um 14 Uhr", "2026-11-23 13:00"),
        ("vom 23. 11. 2026, 14:00 Uhr", "2026-11-23 13:00"),
        ("am 23.11. um 14 Uhr", "2026-11-23 13:00"),
        ("am 24.12. um 14 Uhr", "2025-12-24 13:00"),
        ("today at 8:00", "2026-11-24 07:00"),
        ("heute um 8 Uhr", "2026-11-24 07:00"),
        ("on Monday at 9 am", "2026-11-23 08:00"),
        ("am Montag um 9 Uhr", "2026-11-23 08:00"),
        ("on Tuesday at 9:00", "2026-11-17 08:00"),
        ("2 hours ago", "2026-11-24 07:30"),
        ("vor zwei Stunden", "2026-11-24 07:30"),
        ("an hour ago", "2026-11-24 08:30"),
        ("vor 5 Minuten", "2026-11-24 09:25"),
        ("on 2026-07-01 at 14:00", "2026-07-01 12:00"),
    ],
)
def test_a_time_is_read_on_the_wall_clock(text: str, at: str) -> None:
    (found,) = named_times(f"Please restore /var/www as it was {text}, thank you", WRITTEN, BERLIN)
    assert found.at == utc(at)
    assert found.words in text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("as it was yesterday", "2026-11-23 22:59:59"),
        ("Stand gestern", "2026-11-23 22:59:59"),
        ("from 3 days ago", "2026-11-21 22:59:59"),
        ("von vor einer Woche", "2026-11-17 22:59:59"),
        ("as it was yesterday 3 files ago", "2026-11-23 22:59:59"),
        ("the state of today", "2026-11-24 09:30"),
        ("it was deleted yesterday", "2026-11-22 23:00"),
        ("gestern gelöscht", "2026-11-22 23:00"),
        ("it is broken since 2026-11-23", "2026-11-22 23:00"),
        ("the state from before Monday", "2026-11-22 23:00"),
    ],
)
def test_a_day_alone_is_its_end_and_its_beginning_where_something_was_lost(
    text: str, at: str
) -> None:
    (found,) = named_times(text, WRITTEN, BERLIN)
    assert found.at == utc(at)


@pytest.mark.parametrize(
    "text",
    [
        "tomorrow at 18:00",
        "2030-01-01 10:00",
        "2026-13-45",
        "31.02.2026",
        "0001-01-01 00:00",
        "9999-12-31",
        "today at 23:00",
        "version 1.2.3 on port 8080",
        "call 18:00",
    ],
)
def test_what_is_no_time_of_the_past_is_left_out(text: str) -> None:
    assert named_times(text, WRITTEN, BERLIN) == ()


def test_times_are_each_found_once() -> None:
    text = "yesterday 10:00, gestern 10 Uhr, or 2026-11-22 12:00"
    found = [named.at for named in named_times(text, WRITTEN, BERLIN)]
    assert found == [utc("2026-11-23 09:00"), utc("2026-11-22 11:00")]


def test_the_days_on_which_clocks_change() -> None:
    """02:30 is skipped on 29 March, and comes twice on 25 October: then the first counts."""
    (gap,) = named_times("2026-03-29 02:30", WRITTEN, BERLIN)
    (fold,) = named_times("2026-10-25 02:30", WRITTEN, BERLIN)
    assert (gap.at, fold.at) == (utc("2026-03-29 01:30"), utc("2026-10-25 00:30"))


def test_the_zone_counts() -> None:
    (found,) = named_times("yesterday 18:00", WRITTEN, "America/New_York")
    assert found.at == utc("2026-11-23 23:00")


@given(st.text(alphabet="0123456789.:- TZamgestrnvoyUhu\n", max_size=200))
def test_no_text_is_an_error_and_no_time_is_in_the_future(text: str) -> None:
    for named in named_times(text, WRITTEN, BERLIN):
        assert named.at <= WRITTEN
