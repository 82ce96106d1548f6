"""Detached runs: long work on a server whose record outlives every connection and worker.

A run is claimed by creating its directory, exclusively. Its record (log, boot id, exit status) is
all that counts; no status means unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from managed.domain.secrets import Secret


class RunState(StrEnum):
    """`absent`: never claimed here. `unknown`: claimed, not running, and no exit status."""

    ABSENT = "absent"
    RUNNING = "running"
    FINISHED = "finished"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RunRequest:
    """What to run. `script` is Python or shell source with its own #! line, written beside the
    record and executed with `arguments`; `environment` is public; `secrets` reach the script as
    environment variables through a 0600 file under /run that is removed before it starts.
    `time_limit` in seconds ends the run's processes (0: none).
    """

    run_id: str
    script: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    time_limit: int = 0


@dataclass(frozen=True)
class RunReport:
    """What a look at a run found. `log` is what the run printed from `offset` on (whole lines
    while it runs), `next_offset` where to read on. `exit_status` only when finished.
    """

    state: RunState
    exit_status: int | None
    boot_id: str
    log: str
    next_offset: int


def run_id_for(job_id: str, step: str, attempt: int) -> str:
    """The one name that a step's run has, however many workers ask for it."""
    return f"{job_id}.{step}.{attempt}"
