"""The clock: sends what has not been sent, ends what has outstayed, and runs the poller.

It decides nothing about a job; killed and started again it goes on from the database.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn, TypeVar

import structlog
from prometheus_client import CollectorRegistry

from managed.domain.errors import AlreadyExists, ManagedError
from managed.domain.jobs import Job, JobKind
from managed.domain.rescue import RescueSession
from managed.drivers.ssh.background import background_loop
from managed.logs import configure_logs
from managed.settings import settings
from managed.storage.database import writing
from managed.storage.idempotency import forget_answers
from managed.wiring import Installation, open_installation
from workers.listener import Beat, tell
from workers.notices import Notices
from workers.openings import Openings
from workers.poller import Poller
from workers.queue import send, send_all
from workers.replies import TicketReplies
from workers.self_backup import SelfBackup
from workers.surveys import Surveys

log = structlog.get_logger()

_TICK_SECONDS = 1.0
_KEEP_ANSWERS = timedelta(days=7)
_KEEP_SURVEYS = timedelta(days=90)
_EVERY_TICK = timedelta(0)
_WINDOWS = timedelta(seconds=5)
_MISSED = timedelta(minutes=1)
_REPLIES = timedelta(seconds=5)
_HOUSEKEEPING = timedelta(hours=1)
_SELF_BACKUP = timedelta(minutes=1)
_AFTER_A_FAILURE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(hours=6)
_BEAT_SECONDS = 60.0
_TICKED = "When the clock last did all its duties that were due."
_POLLED = "When the poller last looked which questions are open."
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


Given = TypeVar("Given")


@dataclass
class Duty:
    """One thing that the clock does, and when it is due again."""

    name: str
    work: Callable[[datetime], None]
    every: timedelta
    due_at: datetime = _LONG_AGO


class Clock:
    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._surveys = Surveys(installation)
        openings = Openings(installation, self._surveys, lambda job_id: send(installation, job_id))
        notices = Notices(installation)
        tickets = TicketReplies(installation)
        self._duties = [
            Duty("send", self._send_jobs, _EVERY_TICK),
            Duty("store_surveys", self._surveys.store, _EVERY_TICK),
            Duty("start_windows", openings.start, _WINDOWS),
            Duty("end_too_late", openings.end_too_late, _WINDOWS),
            Duty("record_missed", openings.record_missed, _MISSED),
            Duty("end_sessions", self._end_sessions, _EVERY_TICK),
            Duty("end_requests", tickets.end_requests, _REPLIES),
            Duty("send_replies", tickets.send_beside, _REPLIES),
            Duty("forget_deliveries", tickets.forget_deliveries, _HOUSEKEEPING),
            Duty("prepare_partitions", installation.events.prepare_partitions, _HOUSEKEEPING),
            Duty("forget_answers", self._forget_answers, _HOUSEKEEPING),
            Duty("forget_past", openings.forget_past, _HOUSEKEEPING),
            Duty("forget_surveys", self._forget_surveys, _HOUSEKEEPING),
            Duty("tell", notices.tell, _EVERY_TICK),
            Duty("forget_notifications", notices.forget, _HOUSEKEEPING),
            Duty("self_backup", SelfBackup(installation).start_if_due, _SELF_BACKUP),
        ]

    def tick(self) -> None:
        """Everything that is due now. What fails keeps nothing else from being done."""
        now = self._installation.clock()
        for duty in self._duties:
            if duty.due_at <= now:
                succeeded = attempt(duty.name, duty.work, now)
                duty.due_at = now + (duty.every if succeeded else min(duty.every, _AFTER_A_FAILURE))

    def give_up(self) -> None:
        """End what goes on beside the ticks; a successor begins it anew."""
        self._surveys.give_up()

    def _send_jobs(self, now: datetime) -> None:
        resend = timedelta(seconds=self._installation.settings.resend_seconds)
        send_all(self._installation, self._installation.queue.to_send(now, resend))

    def _end_sessions(self, now: datetime) -> None:
        """None in a pause: it starts a server, and after a restore of the control plane the session
        on record may have ended long ago.
        """
        if self._installation.windows.pause() is not None:
            return
        for session in self._installation.sessions.expired(now):
            attempt("end_session", lambda session: self._end_session(session, now), session)

    def _end_session(self, session: RescueSession, now: datetime) -> None:
        """A job at a time; after each that could not end the session the next comes later."""
        tried = [
            job
            for job in self._installation.queue.find(
                server_id=session.server_id, kind=JobKind.UNRESCUE
            )
            if job.created_at >= session.started_at
        ]
        if not may_try_again(tried, now):
            return
        try:
            self._installation.end_abandoned_session(session, tried[0] if tried else None)
        except AlreadyExists:
            log.info("session_is_being_ended", session_id=session.session_id)

    def _forget_answers(self, now: datetime) -> None:
        with writing(self._installation.database) as connection:
            forget_answers(connection, now - _KEEP_ANSWERS)

    def _forget_surveys(self, now: datetime) -> None:
        self._installation.surveys.forget(now - _KEEP_SURVEYS)


def attempt(what: str, work: Callable[[Given], object], given: Given) -> bool:
    """Do it; whatever is raised is logged. Did it succeed?"""
    try:
        work(given)
    except ManagedError as error:
        log.warning("duty_failed", duty=what, error=error.code, detail=error.message)
        return False
    except Exception:
        log.exception("duty_defect", duty=what)
        return False
    return True


def may_try_again(tried: list[Job], now: datetime) -> bool:
    """May there be another job for what these (newest first) were to do? Not while one is open;
    then after pauses that double, up to six hours.
    """
    ends = [job.finished_at for job in tried if job.finished_at is not None]
    if not tried or len(ends) < len(tried):
        return not tried
    doublings = min(len(tried) - 1, 20)
    return max(ends) + min(_AFTER_A_FAILURE * float(2**doublings), _LONGEST_PAUSE) <= now


def keep_time(
    clock: Clock,
    polling: concurrent.futures.Future[None],
    stop: threading.Event,
    after_tick: Callable[[], None] = lambda: None,
) -> bool:
    """Tick until told to stop; False when the poller ended by itself before."""
    while not stop.wait(_TICK_SECONDS):
        if polling.done() or not background_loop().is_running():
            return False
        clock.tick()
        after_tick()
    return True


def beats(registry: CollectorRegistry) -> tuple[Beat, Beat]:
    """The clock's signs of life: its own and its poller's."""
    return (
        Beat("managed_clock_tick_timestamp_seconds", _TICKED, registry, _BEAT_SECONDS),
        Beat("managed_poller_round_timestamp_seconds", _POLLED, registry, _BEAT_SECONDS),
    )


def main() -> None:
    """Run clock and poller until SIGTERM or SIGINT. A clock without a poller would look healthy
    and wake no job: when the poller ends, so does the process, and is started again.
    """
    configure_logs(settings())
    installation = open_installation(settings())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    registry = CollectorRegistry()
    ticked, polled = beats(registry)
    tell(settings(), registry, [ticked, polled])
    poller_stop = asyncio.Event()
    polling = asyncio.run_coroutine_threadsafe(
        Poller(installation, polled.now).run(poller_stop), background_loop()
    )
    clock = Clock(installation)
    (installation.settings.runtime / "clock-ready").touch()
    log.info("clock_started")
    if not keep_time(clock, polling, stop, ticked.now):
        error = polling.exception() if polling.done() and not polling.cancelled() else None
        log.critical("poller_ended", exc_info=error)
        end_now(1)
    clock.give_up()
    background_loop().call_soon_threadsafe(poller_stop.set)
    try:
        polling.result(timeout=30)
    except Exception:
        log.exception("poller_did_not_stop")
        end_now(1)
    end_now(0)


def end_now(status: int) -> NoReturn:
    """End the process. A thread that hangs (on a node, say) would keep an ordinary exit waiting."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
