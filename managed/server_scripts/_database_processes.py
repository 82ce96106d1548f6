"""The database servers that run here, as /proc shows them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from managed.server_scripts._run import ScriptFailed

DATABASES = ("postgres", "mariadbd", "mysqld")
SECONDS_TO_DIE = 60.0


class DatabaseProcess(NamedTuple):
    """A process of a database server. All of them work in their data directory, so `directory`
    says whose it is; `is_own` tells it from those in containers.
    """

    pid: int
    name: str
    directory: str
    is_own: bool


def database_processes(names: Sequence[str] = DATABASES) -> list[DatabaseProcess]:
    ours = os.readlink("/proc/self/ns/pid")
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name = (place / "comm").read_text(encoding="utf-8", errors="replace").strip()
            if name in names:
                directory = os.readlink(place / "cwd")
                is_own = os.readlink(place / "ns/pid") == ours
                found.append(DatabaseProcess(int(place.name), name, directory, is_own))
        except OSError:
            continue
    return found


def own_processes(names: Sequence[str]) -> set[str]:
    """Which of these programs run on the server itself, not in one of its containers."""
    return {process.name for process in database_processes(names) if process.is_own}


def processes_in(directory: Path) -> list[int]:
    """The server's own database processes that work on this data directory."""
    here = str(directory)
    return [p.pid for p in database_processes() if p.is_own and p.directory == here]


def end_processes_in(directory: Path) -> None:
    """Kill what works on files that are thrown away anyway; gone when this returns."""
    deadline = time.monotonic() + SECONDS_TO_DIE
    while pids := processes_in(directory):
        if time.monotonic() > deadline:
            raise ScriptFailed(f"processes {pids} still work on {directory}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def unit_in(cgroups: str) -> str:
    """The systemd service that a process belongs to, by its /proc/<pid>/cgroup; "" for none."""
    found = re.findall(r"/([^/\n]+\.service)$", cgroups, re.MULTILINE)
    return found[0] if found else ""
