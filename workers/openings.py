"""Starts what windows are there for, and records what they have not started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

import structlog

from managed.domain.customers import Plan
from managed.domain.errors import AlreadyExists, Conflict, Paused
from managed.domain.jobs import Job, JobKind
from managed.domain.submissions import submission_refusal
from managed.domain.surveys import SURVEYED_KINDS, NextMove, SurveyOutcome, next_move
from managed.domain.windows import (
    WINDOW_KINDS,
    Covered,
    Opening,
    Window,
    nearest_window,
    open_now,
    opening_of,
    openings,
)
from managed.storage.database import writing
from managed.storage.windows import MissedWindow
from managed.wiring import Installation
from workers.surveys import Asked, Surveys

log = structlog.get_logger()

_CLOCK: Final = "clock"
_STARTS_AT_ONCE: Final = 200
# A clock that was away for longer tells of the last two nights only.
_LOOKED_BACK: Final = timedelta(hours=48)
_NOT_SURVEYED: Final = "it was not known yet what there was to do: the survey had not ended"
_NOTHING_STARTED: Final = "nothing could be started while it was open"
_RECORD_LOST: Final = "unknown: the control plane was restored from a copy of an earlier time"

Covers = Sequence[tuple[Covered, Plan]]
Refusals = dict[tuple[str, JobKind, Opening], str]


class Openings:
    """`send` tells the workers of a job; `surveys` asks servers what there is to do. Why something
    was not started is remembered until its window closes, and said then.
    """

    def __init__(
        self, installation: Installation, surveys: Surveys, send: Callable[[str], None]
    ) -> None:
        self._installation = installation
        self._surveys = surveys
        self._send = send
        self._refusals: Refusals = {}

    def start(self, now: datetime) -> None:
        """Start a job on every server whose window is open and has started none yet, where a survey
        does not say that there is nothing to do: so many at most that the clock's other duties do
        not wait long.
        """
        left = _STARTS_AT_ONCE
        for kind, opening, covers in self._open(now):
            started = self._installation.windows.started(kind, opening.run_key)
            surveyed = self._outcomes(kind, opening)
            for server, plan in covers:
                if server.server_id in started:
                    continue
                match next_move(kind, surveyed.get(server.server_id)):
                    case NextMove.ASK:
                        self._ask(server.server_id, plan, kind, opening)
                    case NextMove.START if left > 0:
                        left -= self._start(server, plan, kind, opening, now)

    def record_missed(self, now: datetime) -> None:
        """Record every opening of the last two days that has closed and started nothing, though
        there was something to do, or nobody knew.
        """
        pause = self._installation.windows.pause()
        for kind, opening, covers in self._closed(now):
            is_lost = pause is not None and pause.follows_a_restore_after(opening.ends_at)
            unexplained = _RECORD_LOST if is_lost else _NOTHING_STARTED
            known = self._installation.windows.started(kind, opening.run_key)
            known |= self._installation.windows.known_as_missed(kind, opening)
            known |= {
                server_id
                for server_id, outcome in self._outcomes(kind, opening).items()
                if not outcome.starts_a_job
            }
            self._record(
                MissedWindow(
                    server.server_id,
                    kind,
                    opening,
                    self._refusals.get((server.server_id, kind, opening), unexplained),
                    now,
                )
                for server, _ in covers
                if server.server_id not in known
            )
        self._refusals = {key: why for key, why in self._refusals.items() if key[2].ends_at > now}

    def end_too_late(self, now: datetime) -> None:
        """End the jobs that no worker began before their window closed: they are missed, too."""
        for job in self._installation.queue.end_too_late(now):
            log.warning("job_too_late", job_id=job.job_id, kind=job.kind)
            self._record(missed_by(job, now))

    def _outcomes(self, kind: JobKind, opening: Opening) -> Mapping[str, SurveyOutcome]:
        """What surveys for this opening have found, by server."""
        return self._installation.surveys.outcomes(kind, opening) if kind in SURVEYED_KINDS else {}

    def _ask(self, server_id: str, plan: Plan, kind: JobKind, opening: Opening) -> None:
        """Have the server surveyed if it could have the job now, and there is room."""
        asked = Asked(server_id, kind, opening)
        if self._surveys.is_under_way(asked):
            return
        if not self._surveys.has_room:
            self._refusals.setdefault((server_id, kind, opening), _NOT_SURVEYED)
            return
        with self._refusal_remembered(server_id, kind, opening):
            self._installation.queue.require_place(server_id, kind)
            self._require_fit(server_id, kind)
            self._refusals[server_id, kind, opening] = _NOT_SURVEYED
            self._surveys.ask(asked, only_security=plan.only_security)

    def _start(
        self, server: Covered, plan: Plan, kind: JobKind, opening: Opening, now: datetime
    ) -> bool:
        """Was a job stored? Why not is remembered."""
        job = None
        with self._refusal_remembered(server.server_id, kind, opening):
            job = self._submit(server.server_id, plan, kind, opening, now)
        if job is None:
            return False
        log.info("window_started", job_id=job.job_id, kind=kind, server_id=server.server_id)
        self._send(job.job_id)
        return True

    @contextmanager
    def _refusal_remembered(
        self, server_id: str, kind: JobKind, opening: Opening
    ) -> Iterator[None]:
        """Remembers the refusal that ends the block, if one does."""
        try:
            yield
        except AlreadyExists:
            pass
        except Paused:
            # Not its reason, which is for staff: customers read what was missed.
            self._refusals[server_id, kind, opening] = "everything was paused"
        except Conflict as refusal:
            self._refusals[server_id, kind, opening] = refusal.message

    def _require_fit(self, server_id: str, kind: JobKind) -> None:
        """Raises why the server as it stands cannot have such a job."""
        installation = self._installation
        refusal = submission_refusal(
            installation.inventory.get(server_id), kind, installation.sessions.current(server_id)
        )
        if refusal is not None:
            raise refusal

    def _submit(
        self, server_id: str, plan: Plan, kind: JobKind, opening: Opening, now: datetime
    ) -> Job:
        self._require_fit(server_id, kind)
        installation = self._installation
        new = installation.new_job(
            server_id, kind, _parameters(plan, kind), _CLOCK, opening.run_key, opening.ends_at
        )
        with writing(installation.database) as connection:
            return installation.queue.submit_within(connection, new, now)

    def _record(self, missed: Iterator[MissedWindow]) -> None:
        found = list(missed)
        self._installation.windows.record_missed(found)
        for one in found:
            log.warning(
                "window_missed",
                server_id=one.server_id,
                kind=one.job_kind,
                starts_at=one.opening.starts_at.isoformat(),
                reason=one.reason,
            )

    def _open(self, now: datetime) -> Iterator[tuple[JobKind, Opening, Covers]]:
        for kind, window, covers in self._windows_in_use():
            opening = open_now(window, now)
            if opening is not None:
                yield kind, opening, covers

    def _closed(self, now: datetime) -> Iterator[tuple[JobKind, Opening, Covers]]:
        for kind, window, covers in self._windows_in_use():
            for opening in openings(window, now - _LOOKED_BACK, now):
                if opening.ends_at <= now:
                    yield (
                        kind,
                        opening,
                        [
                            (server, plan)
                            for server, plan in covers
                            if server.since <= opening.starts_at
                        ],
                    )

    def _windows_in_use(self) -> Iterator[tuple[JobKind, Window, Covers]]:
        """Each window with the servers that go by it."""
        windows = self._installation.windows.all()
        if not windows:
            return
        covered = self._installation.customers.covered()
        for kind in WINDOW_KINDS:
            by_window: dict[Window, list[tuple[Covered, Plan]]] = defaultdict(list)
            of_kind = [window for window in windows if window.job_kind is kind]
            for server, plan in covered:
                window = nearest_window(of_kind, server, kind)
                if window is not None:
                    by_window[window].append((server, plan))
            for window, covers in by_window.items():
                yield kind, window, covers


def missed_by(job: Job, now: datetime) -> Iterator[MissedWindow]:
    """What is missed when this job did not begin in time: the opening that it was for, if any."""
    opening = opening_of(job)
    if opening is not None:
        yield MissedWindow(job.server_id, job.kind, opening, job.cancel_requested, now)


def _parameters(plan: Plan, kind: JobKind) -> dict[str, object]:
    """What the plan says of such a job."""
    return {"only_security": plan.only_security} if kind is JobKind.PATCH else {}
