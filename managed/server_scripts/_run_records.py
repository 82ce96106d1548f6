"""The record of a detached run on its server, and the processes that belong to it.

The record is a directory of RUNS. It is prepared beside and claimed by a rename, which fails when
the run id is taken; so whoever sees it sees all of it:

    script, request.json   what to run
    boot_id                of the boot on which the run was claimed
    starting               locked by `start` until the supervisor has taken over
    pid                    "<pid> <start tick>" of the supervisor, or "0 0": given up. It is created
                           exclusively: after somebody gave the run up, no supervisor starts it
    log                    what the script printed, LOG_LIMIT bytes at most
    stop                   exists when somebody asked for the end
    status                 the exit status, put there by a rename when all else is on the disk.
                           Without it nobody knows how the run ended
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

RUNS = "/var/lib/managed/runs"
LOG_LIMIT = 64 * 1024 * 1024
SECONDS_TO_START = 60
SECONDS_TO_END = 10
GIVEN_UP = "0 0"
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def record_of(run_id: str) -> str:
    if not RUN_ID.fullmatch(run_id):
        sys.exit(f"{run_id!r} is not a run id")
    return os.path.join(RUNS, run_id)


def read_text(path: str, default: str = "") -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return default


def write_durably(path: str, text: str, mode: int = 0o600) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def this_boot() -> str:
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def start_tick(pid: int) -> str | None:
    """When the process started, in ticks since boot; None when it is dead or there is none."""
    try:
        fields = read_text(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    except ProcessLookupError:
        return None
    return None if not fields or fields[0] in "ZX" else fields[19]


def take_over(record: str, text: str) -> bool:
    """Create the record's `pid`; False when somebody did so before."""
    with tempfile.NamedTemporaryFile("w", dir=record, prefix=".pid-") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, os.path.join(record, "pid"))
        except FileExistsError:
            return False
    sync_directory(record)
    return True


def living_supervisor(record: str) -> int | None:
    """The supervisor's pid while it lives, else None."""
    words = read_text(os.path.join(record, "pid")).split()
    if len(words) != 2 or read_text(os.path.join(record, "boot_id")).strip() != this_boot():
        return None
    pid = int(words[0])
    return pid if pid and start_tick(pid) == words[1] else None


def marked_processes(run_id: str) -> list[int]:
    """Every process that has the run in its environment, wherever it went."""
    mark = f"MANAGED_RUN_ID={run_id}".encode()
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                found.append(int(name))
    return found


def kill(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
