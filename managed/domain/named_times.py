"""Times that a text names, in English or German, as moments: "yesterday 18:00", "2026-11-23 14:00",
"vor 2 Stunden", "am Montag um 9 Uhr", "20 November".

They are read on the wall clock of a given zone, from when the text was written. A day without a
time of day stands for its end, because the last state of that day is meant; where the sentence says
that something was lost or broken on that day, for its beginning. A day without a year is the last
such day. What looks like a time and cannot be read with certainty is handed back as it stands: a
restore must not pass over it. So is a time with a word beside it that makes it another one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from managed.domain.calendar_words import MONTHS, SHORT_WEEKDAYS, WEEKDAYS, one_of
from managed.domain.moments import YEARS
from managed.domain.plain_text import sentences
from managed.domain.time_qualifiers import (
    ABOUT_A_DAY,
    BEFORE_A_TIME,
    BEHIND_A_TIME,
    PREVIOUS,
    WHAT_WAS_THEN,
)
from managed.domain.unread_times import (
    MONTH,
    PART_OF_DAY,
    LikeATime,
    headers_of_mails,
    without_what_is_no_time,
    words_of_an_untold_time,
    words_of_time,
)

_DAYS_BACK: Final = {
    "today": 0,
    "heute": 0,
    "yesterday": 1,
    "gestern": 1,
    "the day before yesterday": 2,
    "day before yesterday": 2,
    "vorgestern": 2,
}
_NUMBERS: Final = {
    word: number
    for number, words in enumerate(
        (
            *("a an one einem einer", "two zwei", "three drei", "four vier", "five fünf"),
            *("six sechs", "seven sieben", "eight acht", "nine neun", "ten zehn", "eleven elf"),
            "twelve zwölf",
        ),
        1,
    )
    for word in words.split()
}
_UNITS: Final = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "stunde": timedelta(hours=1),
    "day": timedelta(days=1),
    "tag": timedelta(days=1),
    "week": timedelta(days=7),
    "woche": timedelta(days=7),
}
# Hours of the clock that fit the part of a day; at night a day ends, so that none does.
_HOURS_OF: Final = {
    "morning": range(12),
    "forenoon": range(12),
    "morgen": range(12),
    "früh": range(12),
    "vormittag": range(12),
    "noon": range(11, 15),
    "mittag": range(11, 15),
    "afternoon": range(12, 19),
    "nachmittag": range(12, 19),
    "evening": range(17, 24),
    "abend": range(17, 24),
}

_HALF: Final = r"(?:[ap]m\b|[ap]\.m\.|uhr\b|h\b)"
_ABOUT: Final = r"(?:(?:around|about|circa|ca\.?|exactly|genau)\s+)"
_SHARP: Final = r"\d{1,2}[:.]\d{2}(?::\d{2})?"
# A number alone is no time of day ("yesterday 3 files"): it needs minutes, or a word at one side.
_CLOCK: Final = (
    rf"(?:(?:at|um|gegen)\s+{_ABOUT}?(?:{_SHARP}|\d{{1,2}})(?:\s*{_HALF})?"
    rf"|{_ABOUT}?(?:{_SHARP}(?:\s*{_HALF})?|\d{{1,2}}\s*{_HALF}))(?![\d:])"
)
_CLOCK_FIRST: Final = (
    rf"(?:(?:at|um|gegen)\s+{_ABOUT}?(?:{_SHARP}|\d{{1,2}})(?:\s*{_HALF})?"
    rf"|{_ABOUT}?(?:\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?:\s*{_HALF})?"
    rf"|\d{{1,2}}(?:\.\d{{2}})?\s*{_HALF}))"
)
_TIME_OF_DAY: Final = re.compile(
    rf"(?P<hour>\d{{1,2}})(?:[:.](?P<minute>\d{{2}})(?::(?P<second>\d{{2}}))?)?"
    rf"\s*(?P<half>{_HALF})?$",
    re.IGNORECASE,
)
_ZONE: Final = r"\s?(?:(?:z|utc|gmt|ces?t|mes?z|[ecmp][sd]t|bst)\b|[+-]\d{2}:?\d{2}(?!\d))"
_ORDINAL: Final = r"(?:st|nd|rd|th|\.)?"
_END: Final = r"(?![\w/-])(?!\.\d)"
_DATE: Final = (
    rf"(?P<iso>\d{{4}}-\d{{1,2}}-\d{{1,2}}|\d{{4}}/\d{{1,2}}/\d{{1,2}})(?:(?=T\d)|{_END}(?!\.\w))"
    rf"|(?P<numbers>\d{{1,2}}(?P<sign>[/-])\d{{1,2}}(?P=sign)\d{{4}}){_END}"
    r"|(?P<dots>\d{1,2}\.\s?\d{1,2}\.(?:\s?\d{4})?)(?!\d)"
    rf"|(?P<day>\d{{1,2}}){_ORDINAL}[\s-]?(?:of\s+)?(?P<month>{MONTH})\b\.?"
    rf"(?:,?[\s-]+(?P<year>\d{{4}}){_END})?"
    rf"|\b(?P<month_first>{MONTH})\b\.?\s+(?:the\s+)?(?P<day_behind>\d{{1,2}})(?:st|nd|rd|th)?"
    rf"(?![\d:]|\.\d|\s*{_HALF})(?:,?\s+(?P<year_behind>\d{{4}}){_END})?"
)
_COUNT: Final = rf"\d{{1,3}}|{one_of(_NUMBERS)}"
_AGO: Final = (
    rf"(?P<count>{_COUNT})\s+(?P<unit>minute|hour|day|week)s?\s+ago\b"
    rf"|\bvor\s+(?P<zahl>{_COUNT})\s+(?P<einheit>minute|stunde|tag|woche)(?:n|en)?\b"
)
# With these before it a time is not the one that its words name.
_VAGUE: Final = (
    r"(?:last|past|letzte[nrsm]?|vorige[nrsm]?|vergangene[nrsm]?|this|diese[nrsm]?|next|coming"
    r"|nächste[nrsm]?|kommende[nrsm]?|every|each|jede[nrsm]?|early|late|mid|anfang|ende|mitte"
    r"|earlier|früher|later|später|half|over|almost|nearly|über|fast|mehr\s+als|more\s+than"
    r"|less\s+than"
    rf"|(?:{_COUNT})\s+(?:minute|hour|day|week)s?\s+(?:and|or)"
    rf"|(?:\d{{1,2}}{_ORDINAL}|{_COUNT})\s?(?:or|to|bis|oder|and|und|-|\u2013)"
    rf"|{BEFORE_A_TIME}|{ABOUT_A_DAY}(?!\s+{_CLOCK_FIRST}))"
)
_HAS_BEEN: Final = re.compile(
    rf"last|past|letzte|vorige|vergangene|earlier|früher|{PREVIOUS}", re.IGNORECASE
)
_NAMED: Final = re.compile(
    rf"(?<![\w.:/-])(?:\b(?P<vague>{_VAGUE})\s+)?"
    rf"(?:(?P<before>{_CLOCK_FIRST})(?:\s*,)?\s+(?:(?:on|am|of)\s+)?(?:the\s+)?)?"
    rf"(?:(?:\b(?P<of_week>{one_of((*WEEKDAYS, *SHORT_WEEKDAYS))})\.?,?\s+(?:the\s+|de[nm]\s+)?)?"
    rf"(?:{_DATE})|{_AGO}"
    rf"|\b(?P<word>{one_of(_DAYS_BACK)})\b|\b(?P<weekday>{one_of(WEEKDAYS)})\b)"
    rf"(?:,?\s+(?:(?:in\s+the|in\s+der|at|am|zu|late|early|spät)\s+)?(?P<part>{PART_OF_DAY})\b)?"
    rf"(?:(?:\s?,\s?|\s+|T)(?:(?P<after>{_CLOCK})(?P<zone>{_ZONE})?"
    r"|(?P<bare>\d{1,2}(?=\s?(?:[.,;!?)-]|$))|[0-2]\d[0-5]\d(?![\w.])"
    r"|(?:between|zwischen|after|nach|before|vor|until|bis|from|ab|von)\s+\d{1,2}(?:[:.]\d{2})?\b)))?"
    rf"(?:(?P<then>{WHAT_WAS_THEN})|(?P<changed>{BEHIND_A_TIME}))?",
    re.IGNORECASE,
)
# Before a day of digits without a year, which is otherwise the number of some version.
_ON_DAY: Final = re.compile(
    r"\b(?:am|vom|zum|dem|den|seit|bis|ab|on|of|from|since|until|stand)\s+$", re.IGNORECASE
)
_LONGEST_WORD_BEFORE: Final = 8
_HARM: Final = re.compile(
    r"\b(?:deleted?|removed?|lost|lose|overw\w+|broke\w*|broken|hacked|gone|missing|since"
    r"|(?<!day )before|before(?! yesterday)"
    r"|gelöscht|entfernt|verloren|überschrieben|kaputt\w*|gehackt|verschwunden|weg|seit"
    r"|bevor|vor dem)\b",
    re.IGNORECASE,
)
_LAST_SUCH_DAY: Final = 8
"""Years back in which each day of the calendar comes at least once."""


@dataclass(frozen=True)
class NamedTime:
    """`words` as they stand in the text, `at` in UTC."""

    words: str
    at: datetime


@dataclass(frozen=True)
class NamedTimes:
    """`times` are moments in the past, each once. `unread` are words that look like a time and are
    not one of these: not understood, in the future, in no calendar, or told by what happened then.
    `later` are those of all of them that may mean a time to come where somebody wants something
    done: on its own "on Monday" is both.
    """

    times: tuple[NamedTime, ...]
    unread: tuple[str, ...]
    later: tuple[str, ...]


def named_times(text: str, written_at: datetime, zone: str) -> NamedTimes:
    """What of the text is a time, read where that is certain."""
    headers, rest = headers_of_mails(without_what_is_no_time(text))
    local = written_at.astimezone(ZoneInfo(zone))
    times: dict[datetime, NamedTime] = {}
    unread = [LikeATime(words, is_past=True) for words in headers]
    later: list[str] = []
    is_harm = _harm_by_position(rest)
    left: list[str] = []
    end = 0
    for match in _NAMED.finditer(rest):
        left += (rest[end : match.start()], ";")
        end = match.end()
        is_past = _has_been(match)
        at = _moment(match, local, rest, is_harm=is_harm[match.start()])
        if at is None or at > written_at:
            unread.append(LikeATime(match.group(), is_past=is_past))
            continue
        times.setdefault(at, NamedTime(match.group(), at))
        if not is_past and not _names_a_year(match):
            later.append(match.group())
    unread += words_of_time("".join((*left, rest[end:])))
    if not times and not unread:
        untold = words_of_an_untold_time(rest)
        unread = [LikeATime(words, is_past=True) for words in untold]
    later += [one.words for one in unread if not one.is_past]
    return NamedTimes(
        tuple(times.values()), tuple(dict.fromkeys(one.words for one in unread)), tuple(later)
    )


def _harm_by_position(text: str) -> list[bool]:
    """For each character: does its sentence say that something was lost?"""
    marks: list[bool] = []
    for sentence in sentences(text):
        marks += [_HARM.search(sentence) is not None] * len(sentence)
    return marks


def _has_been(match: re.Match[str]) -> bool:
    """Do its words mean a time that is over, whichever it is?"""
    if match["count"] or match["zahl"]:
        return True
    if match["word"]:
        is_today = _DAYS_BACK[match["word"].lower()] == 0
        return not is_today or not (match["part"] or match["before"] or match["after"])
    return match["vague"] is not None and _HAS_BEEN.match(match["vague"]) is not None


def _names_a_year(match: re.Match[str]) -> bool:
    has_year = match["iso"] or match["numbers"] or match["year"] or match["year_behind"]
    return bool(has_year) or (match["dots"] is not None and match["dots"][-1].isdigit())


def _moment(match: re.Match[str], local: datetime, text: str, *, is_harm: bool) -> datetime | None:
    """In UTC; None where it is not certain."""
    if match["vague"] or match["zone"] or match["bare"] or match["changed"]:
        return None
    clocks = [words for words in (match["before"], match["after"]) if words]
    if match["then"] and (match["weekday"] or not clocks):
        return None
    if len(clocks) > 1 or (match["part"] and not clocks):
        return None
    passed = _passed(match)
    if passed is not None and passed < timedelta(days=1):
        return None if clocks else local.astimezone(UTC) - passed
    day = _day(match, local.date(), text) if passed is None else local.date() - passed
    if day is None or day.year not in YEARS:
        # Others have no backups, and the calendar's ends cannot be moved to another zone.
        return None
    if not clocks:
        return _whole_day(day, local, is_harm=is_harm).astimezone(UTC)
    clock = _time_of_day(clocks[0])
    if clock is None or (match["part"] and not _fits_part(clock, match["part"])):
        return None
    return _on_the_wall(day, clock, local)


def _passed(match: re.Match[str]) -> timedelta | None:
    count, unit = match["count"] or match["zahl"], match["unit"] or match["einheit"]
    if count is None:
        return None
    return _UNITS[unit.lower()] * (_NUMBERS.get(count.lower()) or int(count))


def _on_the_wall(day: date, clock: time, local: datetime) -> datetime | None:
    """None for what clocks skip; of an hour that comes twice the first."""
    at = datetime.combine(day, clock, local.tzinfo).astimezone(UTC)
    is_shown = at.astimezone(local.tzinfo).replace(tzinfo=None) == datetime.combine(day, clock)
    return at if is_shown else None


def _whole_day(day: date, local: datetime, *, is_harm: bool) -> datetime:
    begin = datetime.combine(day, time(), local.tzinfo)
    if is_harm:
        return begin
    end = datetime.combine(day, time(23, 59, 59), local.tzinfo)
    return min(end, local) if day == local.date() else end


def _day(match: re.Match[str], today: date, text: str) -> date | None:
    if match["word"]:
        return today - timedelta(days=_DAYS_BACK[match["word"].lower()])
    if match["weekday"]:
        back = (today.weekday() - WEEKDAYS[match["weekday"].lower()]) % 7
        return today - timedelta(days=back or 7)
    day = _date(match, today, text)
    if day is None or match["of_week"] is None:
        return day
    name = match["of_week"].lower()
    return day if day.weekday() == (WEEKDAYS | SHORT_WEEKDAYS)[name] else None


def _date(match: re.Match[str], today: date, text: str) -> date | None:
    if match["iso"]:
        return _in_calendar(*map(int, re.split(r"[-/]", match["iso"])))
    if match["numbers"]:
        return _in_either_order(*map(int, re.split(r"[-/]", match["numbers"])))
    if match["dots"]:
        return _dotted(match, today, text)
    month = MONTHS[(match["month"] or match["month_first"]).lower()]
    year = match["year"] or match["year_behind"]
    day = int(match["day"] or match["day_behind"])
    return _in_calendar(int(year), month, day) if year else _last_such_day(month, day, today)


def _in_either_order(first: int, second: int, year: int) -> date | None:
    """Certain where only one of the two can be the month, or both are the same."""
    if first > 12 or first == second:
        return _in_calendar(year, second, first)
    return _in_calendar(year, first, second) if second > 12 else None


def _dotted(match: re.Match[str], today: date, text: str) -> date | None:
    day, month, *year = (int(part) for part in match["dots"].split(".") if part.strip())
    if year:
        return _in_calendar(year[0], month, day)
    start = match.start("dots")
    word_before = text[max(0, start - _LONGEST_WORD_BEFORE) : start]
    is_day = match["of_week"] or match["before"] or match["after"] or _ON_DAY.search(word_before)
    return _last_such_day(month, day, today) if is_day else None


def _last_such_day(month: int, day: int, today: date) -> date | None:
    years = range(today.year, today.year - _LAST_SUCH_DAY - 1, -1)
    days = (_in_calendar(year, month, day) for year in years)
    return next((one for one in days if one is not None and one <= today), None)


def _in_calendar(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _time_of_day(words: str) -> time | None:
    match = _TIME_OF_DAY.search(words.strip())
    if match is None:
        return None
    hour, minute, half = int(match["hour"]), match["minute"], (match["half"] or "").lower()
    if minute is None and not half and hour <= 12:
        # "at 6" is twice a day.
        return None
    if half.startswith("p") and hour == 0:
        return None
    if half[:1] in ("a", "p") and half and hour <= 12:
        hour = hour % 12 + (12 if half[0] == "p" else 0)
    minutes, seconds = int(minute or 0), int(match["second"] or 0)
    return time(hour, minutes, seconds) if max(hour - 24, minutes - 60, seconds - 60) < 0 else None


def _fits_part(clock: time, part: str) -> bool:
    name = part.lower()
    return clock.hour in _HOURS_OF.get(name, _HOURS_OF.get(name.removesuffix("s"), ()))
