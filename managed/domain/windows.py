"""Maintenance windows: when work may start, on whose clocks, and which of several counts.

A window is an RFC 5545 recurrence rule in an IANA time zone, and how long it stays open. Two rules
for the days on which clocks change: a start in the hour that is skipped comes as much later as the
clocks went forward; a start in the hour that comes twice is the first of the two. A window stays
open for its minutes of real time, whatever clocks do meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import islice, pairwise
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from managed.domain.customers import PlanKind
from managed.domain.errors import InvalidInput
from managed.domain.jobs import CLOCKS_KEYS, Job, JobKind
from managed.domain.moments import YEARS
from managed.domain.recurrence_rules import bad_rule, rule_of
from managed.domain.recurrences import Recurrence
from managed.domain.servers import ServerStatus

MINUTES: Final = (15, 1440)
WINDOW_KINDS: Final = (JobKind.BACKUP, JobKind.PATCH)
"""What starts because a window opens; of two at one moment the first."""

_RUN_KEYS: Final = f"{CLOCKS_KEYS}window:"
# In the database beside the zones: the machine's own, no zone at all, and other clocks.
_NO_ZONES: Final = frozenset({"localtime", "Factory", "posixrules", "posix", "right"})
_NO_ZONE: Final = (ZoneInfoNotFoundError, ValueError, OSError)
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


class NearestWindows:
    """Of these windows those that count for servers."""

    def __init__(self, windows: Iterable[Window]) -> None:
        self._windows = {
            (window.job_kind, window.owner, window.owner_id): window for window in windows
        }

    def of(self, server: Covered, kind: JobKind) -> Window | None:
        """The server's own, else its customer's, else its plan's."""
        for owner in WindowOwner:
            owner_id = server.owner_id(owner)
            window = self._windows.get((kind, owner, owner_id)) if owner_id else None
            if window is not None:
                return window
        return None


def open_now(window: Window, now: datetime) -> Opening | None:
    """The window's opening at this moment, the latest to start where several overlap; or None."""
    current = [o for o in openings(window, now - _length(window), now) if o.ends_at > now]
    return current[-1] if current else None


def openings(window: Window, after: datetime, until: datetime) -> Sequence[Opening]:
    """Openings that start after one moment and not after another, in order; none of those that
    started before the window was there.
    """
    recurrence = _recurrence(window)
    if recurrence is None:
        return ()
    after = max(after, window.created_at)
    days = range((until.date() - after.date()).days + 3)
    first_day = after.astimezone(UTC).date() - timedelta(days=1)
    starts = {start for day in days for start in recurrence.on(first_day + timedelta(days=day))}
    length = _length(window)
    return [Opening(s, s + length) for s in sorted(starts) if after < s <= until]


def next_opening(window: Window, now: datetime) -> Opening | None:
    """The first opening after this moment; None when it opens no more, or not within nine years."""
    recurrence = _recurrence(window)
    start = next(recurrence.after(now, _LOOKED_AT), None) if recurrence else None
    return Opening(start, start + _length(window)) if start else None


def can_be_followed(window: Window) -> bool:
    """False for what an earlier version has taken and this one refuses: the window opens no more,
    and still keeps those that are farther from the server from counting.
    """
    return _recurrence(window) is not None


def rule_limitation(window: Window, now: datetime) -> str | None:
    """Why the window's rule opens it no more, or None when it does."""
    if not can_be_followed(window):
        return "its rule cannot be followed any more: give it another one"
    return None if next_opening(window, now) else "its rule has no start within the next nine years"


def plan_limitation(kind: PlanKind) -> str | None:
    """Why no window counts for the servers on such a plan, or None."""
    return "the plan is unmanaged" if kind is PlanKind.UNMANAGED else None


def server_limitation(status: ServerStatus, plan: PlanKind | None) -> str | None:
    """Why no window counts for a server on such a plan (None: on none), or None."""
    if status is ServerStatus.DELETED:
        return "the server is deleted"
    if plan is None:
        return "the server is on no plan"
    if plan is PlanKind.UNMANAGED:
        return "the server's plan is unmanaged"
    return "the server is not enrolled yet" if status is ServerStatus.NEW else None


def customer_limitation(of_servers: Iterable[str | None]) -> str | None:
    """Why a customer's window counts for nobody, or None; given why none does for each server."""
    if any(reason is None for reason in of_servers):
        return None
    return "the customer has no server that is enrolled and on a managed plan"


def first_day_of_rules(zone: str, now: datetime) -> date:
    """The day from which a rule counts that is made now: today on the wall clock of its zone."""
    return now.astimezone(_zone(zone)).date()


def checked_rule(rule: str, zone: str, starts_on: date, now: datetime) -> str:
    """The rule, known to be one that people can follow: daily or rarer, an hour at least between
    its starts, and with one that is to come. InvalidInput that says what is wrong.
    """
    if starts_on.year not in YEARS:
        raise InvalidInput(
            f"a rule that counts from {starts_on}",
            hint=f"Give a day of the years {YEARS[0]} to {YEARS[-1]}.",
            field="starts_on",
        )
    read = rule_of(rule)
    unending = Recurrence(replace(read, count=None, until=None), starts_on, _zone("UTC"))
    begin = datetime.combine(starts_on, time(), UTC) - timedelta(seconds=1)
    starts = list(islice(unending.after(begin, _LOOKED_AT), _STARTS_LOOKED_AT))
    if not starts:
        raise bad_rule("it has no start within nine years")
    if any(later - earlier < _CLOSEST_STARTS for earlier, later in pairwise(starts)):
        raise bad_rule("some of its starts are less than an hour apart")
    if next(Recurrence(read, starts_on, _zone(zone)).after(now, _LOOKED_AT), None) is None:
        raise bad_rule(f"it counts from {starts_on}, and has no start within the next nine years")
    return rule


def checked_zone(zone: str) -> str:
    try:
        if zone.split("/")[0] in _NO_ZONES:
            raise ValueError(zone)
        _zone(zone)
    except _NO_ZONE as error:
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


def _recurrence(window: Window) -> Recurrence | None:
    """None for what cannot be followed: it must not keep the clock from the other windows."""
    try:
        rule, zone = rule_of(window.rule), _zone(window.zone)
    except (InvalidInput, *_NO_ZONE):
        return None
    # Of a rule from long ago only what COUNT counts has to be walked through.
    is_too_early = window.starts_on.year < YEARS[0] and rule.count is not None
    if is_too_early or window.starts_on.year > YEARS[-1]:
        return None
    return Recurrence(rule, window.starts_on, zone)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    """Kept here: `ZoneInfo` itself holds no more than eight and reads others from their files."""
    return ZoneInfo(name)


def _length(window: Window) -> timedelta:
    return timedelta(minutes=window.minutes)
