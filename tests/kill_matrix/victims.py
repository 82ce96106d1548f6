"""Who is killed, and how: always without a chance to say goodbye."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum

from managed.drivers.processes import process_status, running_processes
from managed.lab import cell_processes
from managed.lab.cells import Cell
from tests.support.embedded import argv_of
from tests.support.installation import LiveInstallation, Part
from tests.support.waiting import wait_until


class Victim(StrEnum):
    """All but runner and connection are everybody's: each job of the installation feels it."""

    WORKER = "worker"
    RUNNER = "runner"
    CLOCK = "clock"
    API = "api"
    BROKER = "broker"
    DATABASE = "database"
    CONNECTION = "ssh"
    GATEWAY = "gateway"


_OUTAGE_SECONDS = 60.0
_SECONDS_TO_DIE = 5.0
_SECONDS_TO_RISE = 5.0
_SECONDS_TO_CONNECT = 5.0
_POLL_SECONDS = 0.02
_PARTS = {
    Victim.WORKER: Part.WORKER,
    Victim.CLOCK: Part.CLOCK,
    Victim.API: Part.API,
    Victim.BROKER: Part.BROKER,
    Victim.GATEWAY: Part.GATEWAY,
}


class Killer:
    """Kills parts of one installation. For many threads."""

    def __init__(
        self, installation: LiveInstallation, outage_seconds: float = _OUTAGE_SECONDS
    ) -> None:
        self._installation = installation
        self._outage_seconds = outage_seconds
        self._database = threading.Lock()

    def kill(self, victim: Victim, cell: Cell) -> int:
        """Kill it; the number of processes that were killed (of a database: 1). 0 when there was
        none: no run was at work on the cell, say, or nobody was connected to it.
        """
        if victim is Victim.DATABASE:
            return self._stop_database()
        if victim is Victim.RUNNER:
            return _kill_in(cell, _is_supervisor)
        if victim is Victim.CONNECTION:
            return _kill_first_session(cell)
        return self._kill_part(_PARTS[victim])

    def _kill_part(self, part: Part) -> int:
        """If another job's kill has just ended it, its successor is killed, whatever it does."""
        process = self._installation.parts[part]
        wait_until(lambda: process.is_running, timeout=_SECONDS_TO_RISE, what=f"a new {part}")
        children = [p.pid for p in running_processes() if p.parent == process.pid]
        killed = _kill([process.pid] if process.pid else [])
        _wait_for_end(children)
        return killed

    def _stop_database(self) -> int:
        """Down for a minute. One outage at a time; who comes to another's waits it out."""
        if not self._database.acquire(blocking=False):
            with self._database:
                return 0
        try:
            self._installation.cluster.stop()
            time.sleep(self._outage_seconds)
            self._installation.cluster.start()
        finally:
            self._database.release()
        return 1


def _kill_first_session(cell: Cell) -> int:
    """While a job waits, the poller comes by every now and then: its next visit is waited for."""
    deadline = time.monotonic() + _SECONDS_TO_CONNECT
    while not (killed := _kill_in(cell, _is_ssh_session)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return killed


def _kill_in(cell: Cell, is_meant: Callable[[list[bytes]], bool]) -> int:
    pids = cell_processes.process_ids(cell.group)
    return _kill([pid for pid in pids if is_meant(argv_of(pid))])


def _is_supervisor(argv: list[bytes]) -> bool:
    return b"supervise" in argv and any(b"/runner-" in word for word in argv)


def _is_ssh_session(argv: list[bytes]) -> bool:
    """sshd shows its state in its title; the one that listens is no session. A process that has
    just ended has no title.
    """
    title = argv[0] if argv else b""
    return title.startswith(b"sshd: ") and b"[listener]" not in title


def _kill(pids: Sequence[int]) -> int:
    killed = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    _wait_for_end(pids)
    return killed


def _wait_for_end(pids: Sequence[int]) -> None:
    """A process works on for a moment after the signal, and its children die after it."""

    def are_dead() -> bool:
        found = map(process_status, pids)
        return all(status is None or status.is_dead for status in found)

    wait_until(are_dead, timeout=_SECONDS_TO_DIE, what="what was killed is dead")
