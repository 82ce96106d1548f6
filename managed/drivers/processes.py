"""Child processes that must not outlive their worker, and how a successor ends what survived.

A child is known by its pid and by when it started, so that a pid that has been given to another
process is never taken for it. Linux only: /proc, pidfds and the parent-death signal.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from managed.domain.errors import Json, UnknownOutcome

MARK_VARIABLE: Final = "MANAGED_CHILD"
"""Environment variable by which descendants are found that left their process group."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process for ever: `started` names the boot, the pid namespace and the clock tick."""

    pid: int
    started: str

    @property
    def mark(self) -> str:
        """What `MARK_VARIABLE` holds in the environment of this process's descendants."""
        return f"{self.pid}@{self.started}"

    def as_json(self) -> dict[str, Json]:
        return {"pid": self.pid, "started": self.started}

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> ProcessIdentity:
        return cls(pid=int(str(document["pid"])), started=str(document["started"]))


@dataclass(frozen=True)
class ProcessStatus:
    """A line of /proc/<pid>/stat, as far as it matters here; `start_tick` counts from boot."""

    pid: int
    state: str
    parent: int
    group: int
    start_tick: int

    @property
    def is_dead(self) -> bool:
        return self.state in "ZX"


def with_parent_death_signal(command: Sequence[str], name: str = "KILL") -> tuple[str, ...]:
    """The command so wrapped that the kernel sends it this signal when its parent thread dies."""
    return ("setpriv", "--pdeathsig", name, "--", *command)


def identity_of(pid: int) -> ProcessIdentity | None:
    """The identity of a running process, or None if there is none with this pid."""
    status = process_status(pid)
    if status is None or status.is_dead:
        return None
    return ProcessIdentity(pid, f"{_here()}.{status.start_tick}")


def is_running(identity: ProcessIdentity) -> bool:
    return identity_of(identity.pid) == identity


def process_status(pid: int) -> ProcessStatus | None:
    try:
        return parsed_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def parsed_stat(line: str) -> ProcessStatus:
    """Read a line of /proc/<pid>/stat; the command's name may hold blanks and parentheses."""
    pid, _, rest = line.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return ProcessStatus(int(pid), fields[0], int(fields[1]), int(fields[2]), int(fields[19]))


def running_processes() -> tuple[ProcessStatus, ...]:
    """Every process here that is not a zombie."""
    statuses = (process_status(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return tuple(status for status in statuses if status is not None and not status.is_dead)


def descendants(pid: int, processes: Iterable[ProcessStatus]) -> tuple[int, ...]:
    """The pids below `pid` in the tree of these processes."""
    children: dict[int, list[int]] = {}
    for status in processes:
        children.setdefault(status.parent, []).append(status.pid)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.extend(below)
        waiting.extend(below)
    return tuple(found)


def survivors(identity: ProcessIdentity) -> tuple[int, ...]:
    """What still runs of a child: itself, its process group while it lives, and what bears its
    mark. Without a living leader only the mark counts, because the group's number may be reused.
    """
    if not identity.started.startswith(f"{_here()}."):
        return ()
    leader_runs = is_running(identity)
    return tuple(
        status.pid
        for status in running_processes()
        if (leader_runs and identity.pid in (status.pid, status.group))
        or _bears_mark(status.pid, identity.mark)
    )


def end_survivors(
    identity: ProcessIdentity, *, grace: float = 3, timeout: float = 15
) -> tuple[int, ...]:
    """End what survives of a child: TERM, then KILL after `grace`. Returns the pids that ran.

    Nothing to end is fine. Raises UnknownOutcome when something still runs after `timeout`.
    """
    ended: set[int] = set()

    def found() -> tuple[int, ...]:
        pids = survivors(identity)
        ended.update(pids)
        return pids

    if grace > 0:
        signal_and_wait(found(), signal.SIGTERM, grace)
    if not kill_until_none(found, timeout):
        raise UnknownOutcome(
            "processes of an earlier worker do not end",
            hint="Look at what they wait for; they are stuck in the kernel.",
            pids=list[Json](survivors(identity)),
        )
    return tuple(sorted(ended))


def kill_until_none(found: Callable[[], Sequence[int]], timeout: float) -> bool:
    """KILL what `found()` names, again and again because the dying may have forked meanwhile.

    True when it names nobody any more, False when it still does after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while pids := found():
        if time.monotonic() >= deadline:
            return False
        signal_and_wait(pids, signal.SIGKILL, min(1.0, timeout))
    return True


def signal_and_wait(pids: Sequence[int], number: signal.Signals, timeout: float) -> None:
    """Send a signal and wait until the processes have ended, `timeout` seconds at most.

    A pidfd holds on to the process meant: a pid that is reused meanwhile is not hit.
    """
    poller = select.poll()
    handles: set[int] = set()
    try:
        for pid in pids:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            handles.add(handle)
            poller.register(handle, select.POLLIN)
            try:
                signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                continue
        _wait_for_all(poller, set(handles), timeout)
    finally:
        for handle in handles:
            os.close(handle)


def _wait_for_all(poller: select.poll, running: set[int], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while running and (left := deadline - time.monotonic()) > 0:
        for handle, _ in poller.poll(left * 1000):
            poller.unregister(handle)
            running.discard(handle)


def _bears_mark(pid: int, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{MARK_VARIABLE}={mark}".encode() in environment.split(b"\0")


@cache
def _here() -> str:
    """This boot and this pid namespace: pids and ticks mean nothing outside of them."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot_id}.{os.stat('/proc/self/ns/pid').st_ino}"
