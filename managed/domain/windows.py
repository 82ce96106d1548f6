"""Maintenance windows: when work may start, on whose clocks, and which of several counts.

A window is an RFC 5545 recurrence rule in an IANA time zone, and how long it stays open. Two rules
for the days on which clocks change: a start in the hour that is skipped comes as much later as the
clocks went forward; a start in the hour that comes twice is the first of the two. A window stays
open for its minutes of real time, whatever clocks do meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import islice, pairwise
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrule, rrulestr

from managed.domain.errors import InvalidInput
from managed.domain.jobs import CLOCKS_KEYS, Job, JobKind

MINUTES: Final = (15, 1440)
WINDOW_KINDS: Final = (JobKind.BACKUP, JobKind.PATCH)
"""What starts because a window opens; of two at one moment the first."""

_RUN_KEYS: Final = f"{CLOCKS_KEYS}window:"
_LONGEST_RULE: Final = 500
_PARTS: Final = re.compile(r"[A-Z]+=[A-Z0-9,+-]+(;[A-Z]+=[A-Z0-9,+-]+)*")
_INTERVAL: Final = re.compile(r"INTERVAL=[1-9][0-9]{0,2}")
_FREQUENCIES: Final = {f"FREQ={name}" for name in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")}
_CLOSEST_STARTS: Final = timedelta(hours=1)
# Long enough for the 29th of February; short enough to see soon that a rule has no start.
_LOOKED_AT: Final = timedelta(days=9 * 366)
_STARTS_LOOKED_AT: Final = 100


class WindowOwner(StrEnum):
    """Whose window it is; the nearest to the server wins."""

    SERVER = "server"
    CUSTOMER = "customer"
    PLAN = "plan"


@dataclass(frozen=True)
class Window:
    """When jobs of a kind start. `rule` is an RRULE without its name, such as
    "FREQ=DAILY;BYHOUR=2"; it counts from midnight of `starts_on`.
    """

    window_id: str
    owner: WindowOwner
    owner_id: str
    job_kind: JobKind
    rule: str
    zone: str
    minutes: int
    starts_on: date
    created_at: datetime


@dataclass(frozen=True)
class Opening:
    """One time that a window is open, in UTC: from `starts_at` to just before `ends_at`."""

    starts_at: datetime
    ends_at: datetime

    @property
    def run_key(self) -> str:
        """Makes the job of this opening the only one of its kind on its server."""
        return f"{_RUN_KEYS}{self.starts_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def opening_of(job: Job) -> Opening | None:
    """The opening that the job was started for, or None when it was asked for otherwise."""
    if job.run_key is None or not job.run_key.startswith(_RUN_KEYS) or job.start_by is None:
        return None
    return Opening(datetime.fromisoformat(job.run_key.removeprefix(_RUN_KEYS)), job.start_by)


@dataclass(frozen=True)
class Covered:
    """A server as far as windows are concerned."""

    server_id: str
    customer_id: str | None
    plan_id: str | None

    def owner_id(self, owner: WindowOwner) -> str | None:
        """Whose windows of this kind of owner count for it; None: nobody's."""
        match owner:
            case WindowOwner.SERVER:
                return self.server_id
            case WindowOwner.CUSTOMER:
                return self.customer_id
            case WindowOwner.PLAN:
                return self.plan_id


def nearest_window(windows: Iterable[Window], server: Covered, kind: JobKind) -> Window | None:
    """The window that counts for this server: its own, else its customer's, else its plan's."""
    found = {
        window.owner: window
        for window in windows
        if window.job_kind is kind and window.owner_id == server.owner_id(window.owner)
    }
    return next((found[owner] for owner in WindowOwner if owner in found), None)


def open_now(window: Window, now: datetime) -> Opening | None:
    """The window's opening at this moment, the latest to start where several overlap; or None."""
    current = [o for o in openings(window, now - _length(window), now) if o.ends_at > now]
    return current[-1] if current else None


def openings(window: Window, after: datetime, until: datetime) -> Sequence[Opening]:
    """Openings that start after one moment and not after another, in order; none of those that
    started before the window was there.
    """
    after = max(after, window.created_at)
    days = range((until.date() - after.date()).days + 3)
    first_day = after.astimezone(UTC).date() - timedelta(days=1)
    starts = {
        start
        for day in days
        for start in _starts(
            window.rule, window.zone, window.starts_on, first_day + timedelta(days=day)
        )
    }
    length = _length(window)
    return [Opening(s, s + length) for s in sorted(starts) if after < s <= until]


def next_opening(window: Window, now: datetime) -> Opening | None:
    """The first opening after this moment, within a year and a day; or None."""
    rule = _rule(window.rule, window.starts_on)
    local = now.astimezone(ZoneInfo(window.zone)).replace(tzinfo=None) - timedelta(hours=3)
    for naive in rule.xafter(local, count=10):
        start = _in_utc(naive, window.zone)
        if start > now:
            within = start - now <= timedelta(days=367)
            return Opening(start, start + _length(window)) if within else None
    return None


def checked_rule(rule: str, starts_on: date) -> str:
    """The rule, known to be one that people can follow: daily or rarer, an hour at least between
    its starts, and not without any. InvalidInput that says what is wrong.
    """
    if len(rule) > _LONGEST_RULE or not _PARTS.fullmatch(rule):
        raise _bad_rule("it is not a list of NAME=VALUE in capitals, parted by semicolons")
    parts = rule.split(";")
    if len(_FREQUENCIES & set(parts)) != 1:
        raise _bad_rule("it must say FREQ=DAILY, WEEKLY, MONTHLY or YEARLY")
    if any(part.startswith("INTERVAL=") and not _INTERVAL.fullmatch(part) for part in parts):
        raise _bad_rule("INTERVAL must be from 1 to 999")
    unending = ";".join(part for part in parts if not part.startswith(("COUNT=", "UNTIL=")))
    try:
        horizon = datetime.combine(starts_on, time()) + _LOOKED_AT
        bounded = _rule(unending, starts_on).replace(until=horizon)
        starts = list(islice(bounded, _STARTS_LOOKED_AT))
        first = next(iter(_rule(rule, starts_on)), None) if starts else None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise _bad_rule(str(error) or type(error).__name__) from error
    if first is None:
        raise _bad_rule("it has no start")
    if any(later - earlier < _CLOSEST_STARTS for earlier, later in pairwise(starts)):
        raise _bad_rule("some of its starts are less than an hour apart")
    return rule


def checked_zone(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInput(
            f"{zone!r} is no time zone",
            hint="Give a name of the IANA database, such as Europe/Berlin or UTC.",
            field="zone",
        ) from error
    return zone


def checked_minutes(minutes: int) -> int:
    low, high = MINUTES
    if not low <= minutes <= high:
        raise InvalidInput(
            f"a window of {minutes} minutes", hint=f"Give {low} to {high}.", field="minutes"
        )
    return minutes


def _bad_rule(reason: str) -> InvalidInput:
    return InvalidInput(
        f"the rule cannot be followed: {reason}",
        hint="Give an RFC 5545 rule such as FREQ=DAILY;BYHOUR=2 or FREQ=WEEKLY;BYDAY=SU;BYHOUR=3.",
        field="rule",
    )


@lru_cache(maxsize=1024)
def _rule(rule: str, starts_on: date) -> rrule:
    read = rrulestr(rule, dtstart=datetime.combine(starts_on, time()))
    if not isinstance(read, rrule):
        raise ValueError("it is more than one rule")
    return read


@lru_cache(maxsize=8192)
def _starts(rule: str, zone: str, starts_on: date, day: date) -> tuple[datetime, ...]:
    """The starts of one local day, in UTC. The same rules are asked for thousands of servers."""
    begin = datetime.combine(day, time())
    end = begin + timedelta(days=1) - timedelta(seconds=1)
    found = _rule(rule, starts_on).between(begin, end, inc=True)
    return tuple(_in_utc(naive, zone) for naive in found)


def _in_utc(naive: datetime, zone: str) -> datetime:
    return naive.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)


def _length(window: Window) -> timedelta:
    return timedelta(minutes=window.minutes)
