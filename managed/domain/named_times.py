"""Times that a text names, in English or German, as moments: "yesterday 18:00", "2026-11-23 14:00",
"vor 2 Stunden", "am Montag um 9 Uhr".

They are read on the wall clock of a given zone, from when the text was written. A day without a
time of day stands for its end, because the last state of that day is meant; where the sentence says
that something was lost or broken on that day, for its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from managed.domain.moments import YEARS

_WEEKDAYS: Final = {
    name: number
    for number, names in enumerate(
        (
            ("monday", "montag"),
            ("tuesday", "dienstag"),
            ("wednesday", "mittwoch"),
            ("thursday", "donnerstag"),
            ("friday", "freitag"),
            ("saturday", "samstag", "sonnabend"),
            ("sunday", "sonntag"),
        )
    )
    for name in names
}
_DAYS_BACK: Final = {
    "today": 0,
    "heute": 0,
    "yesterday": 1,
    "gestern": 1,
    "the day before yesterday": 2,
    "vorgestern": 2,
}
_NUMBERS: Final = {
    word: number
    for number, words in enumerate(
        ("a an one einem einer", "two zwei", "three drei", "four vier", "five fünf", "six sechs"), 1
    )
    for word in words.split()
} | {"seven": 7, "sieben": 7}
_UNITS: Final = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "stunde": timedelta(hours=1),
    "day": timedelta(days=1),
    "tag": timedelta(days=1),
    "week": timedelta(days=7),
    "woche": timedelta(days=7),
}

_CLOCK: Final = (
    r"(?:(?:at|um|gegen|around|about|ca\.?)\s+)?"
    r"(?P<hour>\d{1,2})(?:[:.](?P<minute>\d{2}))?\s*(?P<half>am\b|pm\b|a\.m\.|p\.m\.|uhr\b|h\b)?"
)
_DAY: Final = (
    r"(?P<iso>\d{4}-\d{1,2}-\d{1,2})(?=\b|T)"
    r"|(?<![\w.])(?P<german>\d{1,2}\.\s?\d{1,2}\.(?:\s?\d{4})?)(?!\d)"
    rf"|\b(?P<word>{'|'.join(sorted(_DAYS_BACK, key=len, reverse=True))})\b"
    rf"|\b(?P<weekday>{'|'.join(_WEEKDAYS)})\b"
)
_AGO: Final = re.compile(
    rf"\b(?P<count>\d{{1,3}}|{'|'.join(_NUMBERS)})\s+(?P<unit>minute|hour|day|week)s?\s+ago\b"
    rf"|\bvor\s+(?P<zahl>\d{{1,3}}|{'|'.join(_NUMBERS)})\s+(?P<einheit>minute|stunde|tag|woche)(?:n|en)?\b",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(
    rf"(?:(?P<before>\b(?:at|um|gegen|around)\s+\d{{1,2}}(?:[:.]\d{{2}})?\s*(?:am|pm|uhr|h)?)"
    rf"\s+(?:on\s+|am\s+)?)?(?:{_DAY})(?:(?:\s*,\s*|\s+|T)(?P<after>{_CLOCK}))?",
    re.IGNORECASE,
)
_CLOCK_ALONE: Final = re.compile(_CLOCK, re.IGNORECASE)
_SENTENCE: Final = re.compile(r"(?<=[!?\n])|(?<=[^\d\s]\.)(?=\s)")
_HARM: Final = re.compile(
    r"\b(?:deleted?|removed?|lost|lose|overw\w+|broke\w*|broken|hacked|gone|missing|since|before"
    r"|gelöscht|entfernt|verloren|überschrieben|kaputt\w*|gehackt|verschwunden|weg|seit"
    r"|bevor|vor dem)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class NamedTime:
    """`words` as they stand in the text, `at` in UTC."""

    words: str
    at: datetime


def named_times(text: str, written_at: datetime, zone: str) -> tuple[NamedTime, ...]:
    """The moments in the past that a text names, each once. What is no date, or is not over yet
    when the text was written, is left out.
    """
    found: dict[datetime, NamedTime] = {}
    for sentence in _SENTENCE.split(text):
        for named in _in_sentence(sentence, written_at, ZoneInfo(zone)):
            if named.at <= written_at:
                found.setdefault(named.at, named)
    return tuple(found.values())


def _in_sentence(sentence: str, written_at: datetime, zone: ZoneInfo) -> Iterator[NamedTime]:
    is_harm = _HARM.search(sentence) is not None
    local = written_at.astimezone(zone)
    for match in _AGO.finditer(sentence):
        at = _ago(match, local, is_harm=is_harm)
        yield NamedTime(match.group(), at.astimezone(UTC))
    for match in _NAMED.finditer(sentence):
        day = _day(match, local.date())
        if day is None:
            continue
        clock, words = _clock(match)
        if clock is None:
            at = _whole_day(day, local, is_harm=is_harm)
        else:
            at = datetime.combine(day, clock, zone)
        yield NamedTime(words, at.astimezone(UTC))


def _ago(match: re.Match[str], local: datetime, *, is_harm: bool) -> datetime:
    """Hours and minutes are counted from now on; days and weeks name a day."""
    count = (match["count"] or match["zahl"]).lower()
    unit = _UNITS[(match["unit"] or match["einheit"]).lower()]
    passed = unit * (_NUMBERS.get(count) or int(count))
    if unit < timedelta(days=1):
        return local.astimezone(UTC) - passed
    return _whole_day(local.date() - passed, local, is_harm=is_harm)


def _whole_day(day: date, local: datetime, *, is_harm: bool) -> datetime:
    begin = datetime.combine(day, time(), local.tzinfo)
    if is_harm:
        return begin
    end = datetime.combine(day, time(23, 59, 59), local.tzinfo)
    return min(end, local) if day == local.date() else end


def _day(match: re.Match[str], today: date) -> date | None:
    try:
        named = None
        if match["iso"]:
            named = date(*map(int, match["iso"].split("-")))
        elif match["german"]:
            named = _german_day(match["german"], today)
    except ValueError:
        return None
    if named is not None:
        return named if named.year in YEARS else None
    if match["word"]:
        return today - timedelta(days=_DAYS_BACK[match["word"].lower()])
    back = (today.weekday() - _WEEKDAYS[match["weekday"].lower()]) % 7
    return today - timedelta(days=back or 7)


def _german_day(words: str, today: date) -> date:
    """Without a year it is the last such day."""
    parts = [int(part) for part in words.split(".") if part.strip()]
    day, month = parts[:2]
    if len(parts) > 2:
        return date(parts[2], month, day)
    this_year = date(today.year, month, day)
    return this_year if this_year <= today else date(today.year - 1, month, day)


def _clock(match: re.Match[str]) -> tuple[time | None, str]:
    """The time of day before or after the day, and the words that were used. A number alone is none
    ("yesterday 3 files"): it needs minutes, a word before it or one behind it.
    """
    day_only = match.group()
    if match["after"]:
        clock = _time_of_day(match["after"])
        if clock is not None:
            return clock, match.group()
        day_only = match.group()[: match.start("after") - match.start()].rstrip(" ,")
    if match["before"]:
        return _time_of_day(match["before"]), match.group()
    return None, day_only


def _time_of_day(words: str) -> time | None:
    match = _CLOCK_ALONE.fullmatch(words.strip())
    if match is None:
        return None
    is_bare = match["minute"] is None and match["half"] is None
    if is_bare and words.strip()[0].isdigit():
        return None
    hour, half = int(match["hour"]), (match["half"] or "").replace(".", "").lower()
    if half in ("am", "pm") and 1 <= hour <= 12:
        hour = hour % 12 + (12 if half == "pm" else 0)
    minute = int(match["minute"] or 0)
    return time(hour, minute) if hour < 24 and minute < 60 else None
