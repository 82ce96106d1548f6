"""Reads RFC 5545 recurrence rules (section 3.3.10) that are daily or rarer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import StrEnum
from functools import lru_cache
from itertools import product
from typing import Final

from managed.domain.errors import InvalidInput
from managed.domain.moments import YEARS

LONGEST_RULE: Final = 500
MOST_COUNTED: Final = 999_999
"""More than there are hours in the years that the service knows."""
MOST_TIMES_A_DAY: Final = 24
"""More cannot be an hour apart."""

_PART: Final = re.compile(r"([A-Z]+)=([A-Z0-9,+-]+)")
_WEEK_DAYS: Final = {"MO": 0, "TU": 1, "WE": 2, "TH": 3, "FR": 4, "SA": 5, "SU": 6}
_WEEK_DAY: Final = re.compile(rf"([+-]?[0-9]{{1,2}})?({'|'.join(_WEEK_DAYS)})")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,3}")
_DAY_OR_TIME: Final = re.compile(r"[0-9]{8}(T[0-9]{6}Z?)?")
_LISTS: Final[Mapping[str, range]] = {
    "BYMONTH": range(1, 13),
    "BYWEEKNO": range(1, 54),
    "BYYEARDAY": range(1, 367),
    "BYMONTHDAY": range(1, 32),
    "BYSETPOS": range(1, 367),
    "BYHOUR": range(24),
    "BYMINUTE": range(60),
    "BYSECOND": range(60),
}
_FROM_THE_END: Final = frozenset({"BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYSETPOS"})
_ZERO: Final = frozenset({0})
_NAMES: Final = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_LISTS)


class Frequency(StrEnum):
    """What is repeated; values are RFC 5545's."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    YEARLY = "YEARLY"


@dataclass(frozen=True)
class Rule:
    """A rule, read. Empty sets do not limit. Days of the week are 0 for Monday to 6 for Sunday; in
    `week_days` with which one of month or year is meant, 0 for each. `until` is the last day, a
    moment, or one on the wall clock; None without one, and for one after the service's years.
    """

    frequency: Frequency
    interval: int
    count: int | None
    until: date | datetime | None
    week_start: int
    months: frozenset[int]
    week_numbers: frozenset[int]
    year_days: frozenset[int]
    month_days: frozenset[int]
    week_days: frozenset[tuple[int, int]]
    positions: frozenset[int]
    times: tuple[time, ...]


@lru_cache(maxsize=4096)
def rule_of(text: str) -> Rule:
    """The rule that the text says, without "RRULE:"; InvalidInput says what is wrong with it."""
    given = _parts(text)
    frequency = _frequency(given)
    if "BYSETPOS" in given and not any(name[:2] == "BY" for name in given.keys() - {"BYSETPOS"}):
        raise bad_rule("BYSETPOS chooses from what another BY… part names, and there is none")
    if "COUNT" in given and "UNTIL" in given:
        raise bad_rule("COUNT and UNTIL are two ends; give one of them")
    lists = {name: _numbers(name, given[name]) for name in _LISTS if name in given}
    return Rule(
        frequency=frequency,
        interval=_between(given, "INTERVAL", 999) or 1,
        count=_between(given, "COUNT", MOST_COUNTED),
        until=_until(given["UNTIL"]) if "UNTIL" in given else None,
        week_start=_week_start(given),
        months=lists.get("BYMONTH", frozenset()),
        week_numbers=lists.get("BYWEEKNO", frozenset()),
        year_days=lists.get("BYYEARDAY", frozenset()),
        month_days=lists.get("BYMONTHDAY", frozenset()),
        week_days=_week_days(given, frequency),
        positions=lists.get("BYSETPOS", frozenset()),
        times=_times(*(lists.get(name, _ZERO) for name in ("BYHOUR", "BYMINUTE", "BYSECOND"))),
    )


def bad_rule(reason: str) -> InvalidInput:
    return InvalidInput(
        f"the rule cannot be followed: {reason}",
        hint="Give an RFC 5545 rule such as FREQ=DAILY;BYHOUR=2 or FREQ=WEEKLY;BYDAY=SU;BYHOUR=3.",
        field="rule",
    )


def _parts(text: str) -> Mapping[str, str]:
    if len(text) > LONGEST_RULE:
        raise bad_rule(f"it is longer than {LONGEST_RULE} characters")
    if text.startswith("RRULE:"):
        raise bad_rule("it begins with RRULE:, which is to be left out")
    parts: dict[str, str] = {}
    for part in text.split(";"):
        found = _PART.fullmatch(part)
        if found is None:
            raise bad_rule("it is not a list of NAME=VALUE in capitals, parted by semicolons")
        name, value = found.groups()
        if name not in _NAMES:
            raise bad_rule(f"there is no {name}; there are {', '.join(_NAMES)}")
        if name in parts:
            raise bad_rule(f"{name} is there twice; values of one part are parted by commas")
        parts[name] = value
    return parts


def _frequency(given: Mapping[str, str]) -> Frequency:
    try:
        return Frequency(given.get("FREQ", ""))
    except ValueError as error:
        raise bad_rule("it must say FREQ=DAILY, WEEKLY, MONTHLY or YEARLY") from error


def _between(given: Mapping[str, str], name: str, most: int) -> int | None:
    if name not in given:
        return None
    value = given[name]
    if not (value.isdecimal() and len(value) <= len(str(most)) and 1 <= int(value) <= most):
        raise bad_rule(f"{name} must be from 1 to {most}, and is {value}")
    return int(value)


def _numbers(name: str, value: str) -> frozenset[int]:
    allowed, signed = _LISTS[name], name in _FROM_THE_END
    numbers = set()
    for text in value.split(","):
        is_signed = text.startswith(("+", "-"))
        number = int(text) if _NUMBER.fullmatch(text) else None
        if number is None or abs(number) not in allowed or (is_signed and not signed):
            also = f", or from -{allowed[-1]} to -1" if signed else ""
            raise bad_rule(f"{name} must be from {allowed[0]} to {allowed[-1]}{also}, not {text!r}")
        numbers.add(number)
    return frozenset(numbers)


def _week_start(given: Mapping[str, str]) -> int:
    name = given.get("WKST", "MO")
    if name not in _WEEK_DAYS:
        raise bad_rule(f"WKST must be one of {', '.join(_WEEK_DAYS)}, not {name!r}")
    return _WEEK_DAYS[name]


def _week_days(given: Mapping[str, str], frequency: Frequency) -> frozenset[tuple[int, int]]:
    if "BYDAY" not in given:
        return frozenset()
    found = set()
    for text in given["BYDAY"].split(","):
        match = _WEEK_DAY.fullmatch(text)
        if match is None:
            raise bad_rule(f"BYDAY must be of {', '.join(_WEEK_DAYS)}, not {text!r}")
        which = int(match[1]) if match[1] else 0
        if match[1] and abs(which) not in range(1, 54):
            raise bad_rule(f"BYDAY counts from 1 to 53, or from -53 to -1, not as in {text!r}")
        if which and (
            frequency in (Frequency.DAILY, Frequency.WEEKLY) or given.keys() & {"BYWEEKNO"}
        ):
            raise bad_rule(
                f"BYDAY={text} counts in a month or a year: with FREQ=MONTHLY or YEARLY and without"
                " BYWEEKNO"
            )
        found.add((which, _WEEK_DAYS[match[2]]))
    return frozenset(found)


def _until(value: str) -> date | datetime | None:
    """A day (it counts as a whole), a moment in UTC (with Z), or one on the zone's own clock. One
    after the service's years is no end: what writes it means "for ever".
    """
    until: date | datetime
    try:
        if _DAY_OR_TIME.fullmatch(value) is None:
            raise ValueError(value)
        is_day = "T" not in value
        until = date.fromisoformat(value) if is_day else datetime.fromisoformat(value)
    except ValueError as error:
        raise bad_rule(
            "UNTIL must be a day such as 20271231, or a moment in UTC such as 20271231T030000Z,"
            f" not {value!r}"
        ) from error
    if until.year < YEARS[0]:
        raise bad_rule(f"UNTIL must not be before {YEARS[0]}")
    return until if until.year in YEARS else None


def _times(
    hours: frozenset[int], minutes: frozenset[int], seconds: frozenset[int]
) -> tuple[time, ...]:
    if len(hours) * len(minutes) * len(seconds) > MOST_TIMES_A_DAY:
        raise bad_rule("some of its starts are less than an hour apart")
    return tuple(sorted(time(*clock) for clock in product(hours, minutes, seconds)))
