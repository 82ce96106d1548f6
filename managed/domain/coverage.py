"""Which servers an opening was for. It is judged by what was true while the window was open, not by
what has become of windows and servers since.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from managed.domain.jobs import JobKind
from managed.domain.windows import MINUTES, Covered, Opening, Window, WindowOwner, openings

LONGEST_OPENING: Final = timedelta(minutes=MINUTES[1])
_NEARER: Final = {
    WindowOwner.SERVER: (),
    WindowOwner.CUSTOMER: (WindowOwner.SERVER,),
    WindowOwner.PLAN: (WindowOwner.SERVER, WindowOwner.CUSTOMER),
}

Owner = tuple[WindowOwner, str | None]


@dataclass(frozen=True)
class Period:
    """From one moment to another; None: it goes on."""

    since: datetime
    until: datetime | None

    def spans(self, opening: Opening) -> bool:
        return self.since <= opening.starts_at and (
            self.until is None or opening.ends_at <= self.until
        )

    def within(self, other: Period) -> Period | None:
        """What it has in common with the other one."""
        since = max(self.since, other.since)
        until = other.until if self.until is None else self.until
        if until is not None and other.until is not None:
            until = min(until, other.until)
        return Period(since, until) if until is None or since < until else None


@dataclass(frozen=True)
class WindowPeriod:
    """A window as it was from its `created_at` until it was changed or removed, or as it is."""

    window: Window
    until: datetime | None

    def closed(self, after: datetime, now: datetime) -> Iterator[Opening]:
        """Its openings that ended after one moment and not after another. One in whose midst the
        window was changed or removed never came to its end.
        """
        length = timedelta(minutes=self.window.minutes)
        for opening in openings(self.window, after - length, now - length):
            if self.until is None or opening.ends_at <= self.until:
                yield opening

    def touches(self, opening: Opening) -> bool:
        return self.window.created_at < opening.ends_at and (
            self.until is None or opening.starts_at < self.until
        )


@dataclass(frozen=True)
class CoverPeriod:
    """A server under management whose customer, and whose plan, a managed one, were these."""

    server: Covered
    period: Period


def closed_openings(
    windows: Iterable[WindowPeriod], after: datetime, now: datetime
) -> Mapping[tuple[JobKind, Opening], Sequence[Window]]:
    """What ended after one moment and not after another, with the windows whose opening it was."""
    found: dict[tuple[JobKind, Opening], list[Window]] = defaultdict(list)
    for period in windows:
        for opening in period.closed(after, now):
            found[period.window.job_kind, opening].append(period.window)
    return found


class Coverage:
    """Who went by which windows, and when."""

    def __init__(self, windows: Iterable[WindowPeriod], servers: Iterable[CoverPeriod]) -> None:
        self._windows: dict[tuple[JobKind, Owner], list[WindowPeriod]] = defaultdict(list)
        for period in windows:
            window = period.window
            self._windows[window.job_kind, (window.owner, window.owner_id)].append(period)
        self._servers: dict[Owner, list[CoverPeriod]] = defaultdict(list)
        for one in servers:
            for owner in WindowOwner:
                self._servers[owner, one.server.owner_id(owner)].append(one)

    def servers_of(self, kind: JobKind, opening: Opening, counting: Iterable[Window]) -> set[str]:
        """The servers for which one of these windows counted from the opening's start to its end:
        no nearer one was there at any time of it.
        """

        @cache
        def has_one(owner: Owner) -> bool:
            """Had this owner a window of the kind at any time of the opening?"""
            return any(period.touches(opening) for period in self._windows.get((kind, owner), ()))

        return {
            one.server.server_id
            for window in counting
            for one in self._servers.get((window.owner, window.owner_id), ())
            if one.period.spans(opening)
            and not any(
                has_one((owner, one.server.owner_id(owner))) for owner in _NEARER[window.owner]
            )
        }
