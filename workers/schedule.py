"""The clock: sends what has not been sent, ends what has outstayed, and runs the poller.

It decides nothing about a job; killed and started again it goes on from the database.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from datetime import datetime, timedelta

import structlog

from managed.domain.errors import ManagedError
from managed.drivers.ssh.background import background_loop
from managed.logs import configure_logs
from managed.settings import settings
from managed.storage.database import writing
from managed.storage.idempotency import forget_answers
from managed.wiring import Installation, open_installation
from workers.poller import Poller
from workers.queue import send

log = structlog.get_logger()

_TICK_SECONDS = 1.0
_KEEP_ANSWERS = timedelta(days=7)
_HOUSEKEEPING = timedelta(hours=1)


class Clock:
    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._last_housekeeping: datetime | None = None

    def tick(self) -> None:
        """Everything that is due now."""
        now = self._installation.clock()
        resend = timedelta(seconds=self._installation.settings.resend_seconds)
        for job_id in self._installation.queue.to_send(now, resend):
            send(self._installation, job_id)
        for session in self._installation.sessions.expired(now):
            self._installation.end_abandoned_session(session)
        if self._last_housekeeping is None or now - self._last_housekeeping >= _HOUSEKEEPING:
            self._keep_house(now)
            self._last_housekeeping = now

    def _keep_house(self, now: datetime) -> None:
        self._installation.events.prepare_partitions(now)
        with writing(self._installation.database) as connection:
            forget_answers(connection, now - _KEEP_ANSWERS)


def main() -> None:
    """Run clock and poller until SIGTERM or SIGINT."""
    configure_logs(settings())
    installation = open_installation(settings())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    poller_stop = asyncio.Event()
    polling = asyncio.run_coroutine_threadsafe(
        Poller(installation).run(poller_stop), background_loop()
    )
    clock = Clock(installation)
    (installation.settings.runtime / "clock-ready").touch()
    log.info("clock_started")
    while not stop.wait(_TICK_SECONDS):
        try:
            clock.tick()
        except ManagedError as error:
            log.warning("tick_failed", error=error.code, detail=error.message)
    background_loop().call_soon_threadsafe(poller_stop.set)
    polling.result(timeout=30)


if __name__ == "__main__":
    main()
