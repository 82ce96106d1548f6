"""The starts that a recurrence rule has on a day.

A rule is asked day by day and not walked from its beginning: a look costs the same however long ago
that was, and how much is looked through is bounded. Only the last start of a rule with COUNT is
found by walking, once.
"""

from __future__ import annotations

from calendar import isleap, monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from managed.domain.moments import YEARS
from managed.domain.recurrence_rules import Frequency, Rule

# Rules with COUNT are not walked further for their last start.
_LAST_DAY: Final = date(YEARS[-1], 12, 31)


@dataclass(frozen=True)
class Recurrence:
    """A rule that counts from midnight of a day, on the wall clock of a zone."""

    rule: Rule
    starts_on: date
    zone: ZoneInfo

    def on(self, day: date) -> Sequence[datetime]:
        """The starts of that day of the zone, in UTC and in order."""
        starts = _starts(self.rule, self.starts_on, day)
        if not starts:
            return ()
        if self.rule.count is not None:
            last = _last_counted(self.rule, self.starts_on)
            starts = [start for start in starts if start <= last]
        return sorted(
            {moment for start in starts if self._is_in_time(start, moment := self._in_utc(start))}
        )

    def after(self, moment: datetime, within: timedelta) -> Iterator[datetime]:
        """The starts after this moment, in order: those of so long at most, counted from the moment
        or from the rule's beginning if that is later.
        """
        first = max(self.starts_on, moment.astimezone(self.zone).date() - timedelta(days=1))
        last = min(first + within, self._last_day())
        for day in _days(self.rule, self.starts_on, first, last):
            yield from (start for start in self.on(day) if start > moment)

    def _last_day(self) -> date:
        """A day after which there is no start."""
        if self.rule.count is not None:
            return _last_counted(self.rule, self.starts_on).date()
        until = self.rule.until
        if isinstance(until, datetime):
            return (until.astimezone(self.zone) if until.tzinfo else until).date()
        return until or date.max

    def _is_in_time(self, start: datetime, moment: datetime) -> bool:
        """`moment` is the start in UTC."""
        until = self.rule.until
        if isinstance(until, datetime):
            return moment <= until if until.tzinfo else start <= until
        return until is None or start.date() <= until

    def _in_utc(self, start: datetime) -> datetime:
        """One that clocks skip comes as much later; of one that comes twice the first."""
        return start.replace(tzinfo=self.zone, fold=0).astimezone(UTC)


def _starts(rule: Rule, starts_on: date, day: date) -> Sequence[datetime]:
    """The starts of a day on the wall clock, in order, whatever COUNT and UNTIL say."""
    if (
        day < starts_on
        or (_period(rule, day) - _period(rule, starts_on)) % rule.interval
        or not _is_named(rule, starts_on, day)
    ):
        return ()
    starts = [datetime.combine(day, clock) for clock in rule.times]
    if not rule.positions:
        return starts
    first, length = _span(rule, day)
    chosen = _chosen(rule, starts_on, first, length)
    return [start for start in starts if start in chosen]


def _days(rule: Rule, starts_on: date, first: date, last: date) -> Iterator[date]:
    """The days on which there may be a start, without the periods that INTERVAL leaves out."""
    day = first
    while day <= last:
        period_first, length = _span(rule, day)
        if (_period(rule, day) - _period(rule, starts_on)) % rule.interval:
            day = period_first + timedelta(days=length)
        elif rule.months and day.month not in rule.months:
            day = _first_of_month(day) + timedelta(days=monthrange(day.year, day.month)[1])
        else:
            yield day
            day += timedelta(days=1)


def _period(rule: Rule, day: date) -> int:
    """The number of the day, week, month or year that the rule repeats and that this day is in."""
    match rule.frequency:
        case Frequency.DAILY:
            return day.toordinal()
        case Frequency.WEEKLY:
            return (day.toordinal() - 1 - rule.week_start) // 7
        case Frequency.MONTHLY:
            return day.year * 12 + day.month
        case Frequency.YEARLY:
            return day.year


def _span(rule: Rule, day: date) -> tuple[date, int]:
    """The first day of that period, and how many days it has."""
    match rule.frequency:
        case Frequency.DAILY:
            return day, 1
        case Frequency.WEEKLY:
            return _span_of_week(rule, day)
        case Frequency.MONTHLY:
            return _first_of_month(day), monthrange(day.year, day.month)[1]
        case Frequency.YEARLY:
            return date(day.year, 1, 1), _days_in_year(day.year)


@lru_cache(maxsize=1024)
def _chosen(rule: Rule, starts_on: date, first: date, length: int) -> frozenset[datetime]:
    """What BYSETPOS chooses from the starts of a period."""
    days = (first + timedelta(days=number) for number in range(length))
    starts = [
        datetime.combine(day, clock)
        for day in days
        if _is_named(rule, starts_on, day)
        for clock in rule.times
    ]
    places = (place - 1 if place > 0 else len(starts) + place for place in rule.positions)
    return frozenset(starts[place] for place in places if 0 <= place < len(starts))


@lru_cache(maxsize=4096)
def _last_counted(rule: Rule, starts_on: date) -> datetime:
    """The last of COUNT starts on the wall clock; the end of the years when there are fewer."""
    days = _days(rule, starts_on, starts_on, _LAST_DAY)
    starts = (start for day in days for start in _starts(rule, starts_on, day))
    count = rule.count or 0
    return next(islice(starts, count - 1, count), datetime.combine(_LAST_DAY, time.max))


def _is_named(rule: Rule, starts_on: date, day: date) -> bool:
    """Do the rule's parts name this day? What they leave open is as on `starts_on`."""
    return (
        (not rule.months or day.month in rule.months)
        and (not rule.week_numbers or _is_among(rule.week_numbers, *_week_in_year(rule, day)))
        and (not rule.year_days or _is_among(rule.year_days, *_day_in_year(day)))
        and (not rule.month_days or _is_among(rule.month_days, *_day_in_month(day)))
        and (not rule.week_days or _is_named_week_day(rule, day))
        and _is_as_at_the_beginning(rule, starts_on, day)
    )


def _is_among(numbers: frozenset[int], place: int, count: int) -> bool:
    """Numbers below zero count from the end."""
    return place in numbers or place - count - 1 in numbers


def _is_named_week_day(rule: Rule, day: date) -> bool:
    """A number, as in 2TU, counts in the month, or in the year of a rule without months."""
    week_day = day.weekday()
    if (0, week_day) in rule.week_days:
        return True
    in_month = rule.frequency is Frequency.MONTHLY or bool(rule.months)
    place, count = _day_in_month(day) if in_month else _day_in_year(day)
    from_begin, from_end = (place - 1) // 7 + 1, (count - place) // 7 + 1
    return not rule.week_days.isdisjoint({(from_begin, week_day), (-from_end, week_day)})


def _is_as_at_the_beginning(rule: Rule, starts_on: date, day: date) -> bool:
    """Where the parts name no days, they are those like the first."""
    if rule.week_days or rule.month_days or rule.year_days:
        return True
    if rule.frequency is Frequency.DAILY:
        return True
    if rule.week_numbers or rule.frequency is Frequency.WEEKLY:
        return day.weekday() == starts_on.weekday()
    if rule.frequency is Frequency.MONTHLY:
        return day.day == starts_on.day
    return day.day == starts_on.day and day.month in (rule.months or {starts_on.month})


def _day_in_month(day: date) -> tuple[int, int]:
    return day.day, monthrange(day.year, day.month)[1]


def _day_in_year(day: date) -> tuple[int, int]:
    return day.timetuple().tm_yday, _days_in_year(day.year)


def _week_in_year(rule: Rule, day: date) -> tuple[int, int]:
    """The number of the day's week, and how many its year has: a week belongs to the year that has
    four of its days or more.
    """
    first, _ = _span_of_week(rule, day)
    place, count = _day_in_year(first + timedelta(days=3))
    number = (place - 1) // 7 + 1
    return number, number + (count - place) // 7


def _span_of_week(rule: Rule, day: date) -> tuple[date, int]:
    return day - timedelta(days=(day.weekday() - rule.week_start) % 7), 7


def _first_of_month(day: date) -> date:
    return day.replace(day=1)


def _days_in_year(year: int) -> int:
    return 366 if isleap(year) else 365
