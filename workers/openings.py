"""Starts what windows are there for, and records what they have not started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from managed.domain.coverage import LONGEST_OPENING, Coverage, closed_openings
from managed.domain.customers import Plan
from managed.domain.errors import AlreadyExists, Conflict, Paused
from managed.domain.jobs import HELD_IN_A_PAUSE, Job, JobKind
from managed.domain.rescue import RescueSession
from managed.domain.servers import Server
from managed.domain.submissions import submission_refusal
from managed.domain.surveys import SURVEYED_KINDS, NextMove, SurveyOutcome, next_move
from managed.domain.windows import (
    WINDOW_KINDS,
    Covered,
    NearestWindows,
    Opening,
    Window,
    can_be_followed,
    open_now,
)
from managed.storage.database import writing
from managed.storage.job_queue import occupation
from managed.storage.windows import MissedWindow, Pause
from managed.wiring import Installation
from workers.surveys import Asked, Surveys

log = structlog.get_logger()

_CLOCK: Final = "clock"
_STARTS_AT_ONCE: Final = 200
# A clock that was away for longer tells of the last two nights only.
_LOOKED_BACK: Final = timedelta(hours=48)
_KEEP_PAST: Final = timedelta(days=7)
# Not the pause's reason, which is for staff: customers read what was missed.
_PAUSED: Final = "everything was paused"
_NOT_SURVEYED: Final = (
    "it was not known what there was to do: no survey had ended while it was open"
)
_NOTHING_STARTED: Final = "nothing could be started while it was open"
_RECORD_LOST: Final = "unknown: the control plane was restored from a copy of an earlier time"

Covers = Sequence[tuple[Covered, Plan]]
Refusals = dict[tuple[str, JobKind, Opening], str]


@dataclass(frozen=True)
class Hindrances:
    """What keeps servers from a job at this moment. `busy` says of servers that a job has them;
    `sessions` are the open rescue sessions, by server.
    """

    is_paused: bool
    busy: dict[str, str]
    sessions: Mapping[str, tuple[Server, RescueSession]]

    def refusal(self, server_id: str, kind: JobKind) -> str | None:
        """Why the server cannot have a job of this kind now, or None."""
        if self.is_paused and kind in HELD_IN_A_PAUSE:
            return _PAUSED
        if server_id in self.busy:
            return self.busy[server_id]
        if server_id not in self.sessions:
            return None
        server, session = self.sessions[server_id]
        refusal = submission_refusal(server, kind, session)
        return refusal.message if refusal else None


class Openings:
    """`send` tells the workers of a job; `surveys` asks servers what there is to do. What hindered
    a server at the last look is remembered until its window closes, and said then. So is until
    when openings have been judged: a new process looks at those of two days once more. It tells
    again, too, which windows cannot be followed.
    """

    def __init__(
        self, installation: Installation, surveys: Surveys, send: Callable[[str], None]
    ) -> None:
        self._installation = installation
        self._surveys = surveys
        self._send = send
        self._refusals: Refusals = {}
        self._judged_until: datetime | None = None
        self._told_of: Set[Window] = frozenset()

    def start(self, now: datetime) -> None:
        """Start a job on every server whose window is open and has started none yet, where a survey
        does not say that there is nothing to do: so many at most that the clock's other duties do
        not wait long. What keeps servers from it is read once for all.
        """
        left = _STARTS_AT_ONCE
        hindrances = self._hindrances()
        for kind, opening, covers in self._open(now):
            started = self._installation.windows.started(kind, opening.run_key)
            surveyed = self._outcomes(kind, opening)
            for server, plan in covers:
                server_id = server.server_id
                move = next_move(kind, surveyed.get(server_id))
                if server_id in started or move is NextMove.LEAVE:
                    continue
                refusal = hindrances.refusal(server_id, kind)
                if refusal is not None:
                    self._refusals[server_id, kind, opening] = refusal
                    continue
                self._refusals.pop((server_id, kind, opening), None)
                if move is NextMove.ASK:
                    self._ask(server_id, plan, kind, opening)
                elif left > 0:
                    left -= 1
                    if self._start(server_id, plan, kind, opening, now):
                        hindrances.busy[server_id] = occupation(kind)

    def record_missed(self, now: datetime) -> None:
        """Record every opening that has closed and started nothing, though there was something to
        do, or nobody knew: of the last two days if another process has looked before.
        """
        after = max(now - _LOOKED_BACK, self._judged_until or now - _LOOKED_BACK)
        pause = self._installation.windows.pause()
        for kind, opening, servers in self._closed(after, now):
            if servers:
                self._judge(kind, opening, servers, pause, now)
        self._judged_until = max(after, now)
        self._refusals = {key: why for key, why in self._refusals.items() if key[2].ends_at > now}

    def end_too_late(self, now: datetime) -> None:
        """End the jobs that no worker began before their window closed: they are missed, too."""
        for job in self._installation.queue.end_too_late(now):
            log.warning("job_too_late", job_id=job.job_id, server_id=job.server_id, kind=job.kind)

    def forget_past(self, now: datetime) -> None:
        """Forget how windows and placements were, when no opening of that time is judged again."""
        self._installation.windows.forget_past(now - _KEEP_PAST)
        self._installation.customers.forget_covers(now - _KEEP_PAST)

    def _judge(
        self,
        kind: JobKind,
        opening: Opening,
        servers: Set[str],
        pause: Pause | None,
        now: datetime,
    ) -> None:
        """Record for which of its servers a closed opening was missed, and why."""
        windows = self._installation.windows
        surveyed = self._outcomes(kind, opening)
        is_lost = pause is not None and pause.follows_a_restore_after(opening.ends_at)
        content = {one for one, outcome in surveyed.items() if not outcome.starts_a_job}
        unstarted = servers - windows.started(kind, opening.run_key) - content
        if not unstarted:
            return
        missed = [
            MissedWindow(
                server_id,
                kind,
                opening,
                self._refusals.get((server_id, kind, opening))
                or unexplained(kind, surveyed.get(server_id), is_lost),
                now,
            )
            for server_id in sorted(unstarted - windows.known_as_missed(kind, opening))
        ]
        for one in windows.record_missed(missed):
            log.warning(
                "window_missed",
                server_id=one.server_id,
                kind=one.job_kind,
                starts_at=one.opening.starts_at.isoformat(),
                reason=one.reason,
            )

    def _outcomes(self, kind: JobKind, opening: Opening) -> Mapping[str, SurveyOutcome]:
        """What surveys for this opening have found, by server."""
        return self._installation.surveys.outcomes(kind, opening) if kind in SURVEYED_KINDS else {}

    def _hindrances(self) -> Hindrances:
        installation = self._installation
        return Hindrances(
            is_paused=installation.windows.pause() is not None,
            busy=installation.queue.busy_servers(),
            sessions={
                server.server_id: (server, session)
                for server, session in installation.sessions.all_open()
            },
        )

    def _ask(self, server_id: str, plan: Plan, kind: JobKind, opening: Opening) -> None:
        """Have the server surveyed if it is not being asked already, and there is room."""
        asked = Asked(server_id, kind, opening)
        if self._surveys.has_room and not self._surveys.is_under_way(asked):
            self._surveys.ask(asked, only_security=plan.only_security)

    def _start(
        self, server_id: str, plan: Plan, kind: JobKind, opening: Opening, now: datetime
    ) -> bool:
        """Was a job stored? Why not is remembered."""
        try:
            job = self._submit(server_id, plan, kind, opening, now)
        except AlreadyExists:
            return False
        except Paused:
            self._refusals[server_id, kind, opening] = _PAUSED
            return False
        except Conflict as refusal:
            self._refusals[server_id, kind, opening] = refusal.message
            return False
        log.info("window_started", job_id=job.job_id, kind=kind, server_id=server_id)
        self._send(job.job_id)
        return True

    def _submit(
        self, server_id: str, plan: Plan, kind: JobKind, opening: Opening, now: datetime
    ) -> Job:
        """Conflict when the server cannot have it any more since the look at what hinders."""
        installation = self._installation
        server = installation.inventory.get(server_id)
        refusal = submission_refusal(server, kind, installation.sessions.current(server_id))
        if refusal is not None:
            raise refusal
        new = installation.new_job(
            server_id, kind, _parameters(plan, kind), _CLOCK, opening.run_key, opening.ends_at
        )
        with writing(installation.database) as connection:
            return installation.queue.submit_within(connection, new, now)

    def _open(self, now: datetime) -> Iterator[tuple[JobKind, Opening, Covers]]:
        for kind, window, covers in self._windows_in_use():
            opening = open_now(window, now)
            if opening is not None:
                yield kind, opening, covers

    def _closed(
        self, after: datetime, now: datetime
    ) -> Iterator[tuple[JobKind, Opening, Set[str]]]:
        """What ended after one moment and not after another, with the servers that it was for. Of
        servers nothing is read while nothing has ended.
        """
        earliest = after - LONGEST_OPENING
        windows = self._installation.windows.periods(earliest)
        closed = closed_openings(windows, after, now)
        if not closed:
            return
        coverage = Coverage(windows, self._installation.customers.cover_periods(earliest))
        for (kind, opening), counting in closed.items():
            yield kind, opening, coverage.servers_of(kind, opening, counting)

    def _windows_in_use(self) -> Iterator[tuple[JobKind, Window, Covers]]:
        """Each window with the servers that go by it."""
        windows = self._installation.windows.all()
        self._tell_of_unreadable(windows)
        if not windows:
            return
        nearest, covered = NearestWindows(windows), self._installation.customers.covered()
        for kind in WINDOW_KINDS:
            by_window: dict[Window, list[tuple[Covered, Plan]]] = defaultdict(list)
            for server, plan in covered:
                window = nearest.of(server, kind)
                if window is not None:
                    by_window[window].append((server, plan))
            for window, covers in by_window.items():
                yield kind, window, covers

    def _tell_of_unreadable(self, windows: Sequence[Window]) -> None:
        """Once of each, and again when it has been changed."""
        unreadable = {window for window in windows if not can_be_followed(window)}
        for window in unreadable - self._told_of:
            log.warning(
                "window_cannot_be_followed",
                window_id=window.window_id,
                owner=window.owner,
                owner_id=window.owner_id,
                kind=window.job_kind,
                rule=window.rule,
                zone=window.zone,
                starts_on=window.starts_on.isoformat(),
            )
        self._told_of = unreadable


def unexplained(kind: JobKind, surveyed: SurveyOutcome | None, is_lost: bool) -> str:
    """Why a window started nothing on a server that nothing is known to have hindered. `is_lost`:
    what the window started may not be on record any more.
    """
    if is_lost:
        return _RECORD_LOST
    if kind in SURVEYED_KINDS and surveyed is None:
        return _NOT_SURVEYED
    return _NOTHING_STARTED


def _parameters(plan: Plan, kind: JobKind) -> dict[str, object]:
    """What the plan says of such a job."""
    return {"only_security": plan.only_security} if kind is JobKind.PATCH else {}
