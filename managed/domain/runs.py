"""Detached runs: long work on a server whose record outlives every connection and worker.

A run is claimed by creating its directory, exclusively. Its record (log, boot id, exit status) is
all that counts; no status means unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from signal import SIGKILL, SIGTERM

from managed.domain.secrets import Secret

# Statuses that the runner on the server gives by itself; see managed/server_scripts.
STATUS_TIME_LIMIT = 124
STATUS_NOT_STARTED = 126


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


def run_id_for(job_id: str, step: str, number: int) -> str:
    """The one name that a step's run has, however many workers and tries ask for it. `number`
    goes up only when the run before is over without an end on record.
    """
    return f"{job_id}.{step}.{number}"


class RunAction(StrEnum):
    """What a step does about its present run.

    `start` claims the run's id, or attaches to who has claimed it; `wait` asks for its end;
    `read` takes its result; `new-run` leaves it behind for the next number; `give-up` fails
    because it works on past its time.
    """

    START = "start"
    WAIT = "wait"
    READ = "read"
    NEW_RUN = "new-run"
    GIVE_UP = "give-up"


def run_action(answered: RunState | None, seen: RunState | None, *, overdue: bool) -> RunAction:
    """What follows from the answer to a wait for the run, or else from a look at it.

    Both are None when nobody has asked or looked. `overdue`: a wait for it ran out of time, so
    it did start. A run that is not known to be over is never followed by another one. What a
    look finds ended is waited for all the same: so its whole log is kept first.
    """
    if answered is RunState.FINISHED:
        return RunAction.READ
    if answered in (RunState.ABSENT, RunState.UNKNOWN):
        return RunAction.NEW_RUN
    if seen is None:
        return RunAction.START
    if seen is RunState.ABSENT:
        return RunAction.NEW_RUN if overdue else RunAction.START
    if seen is RunState.RUNNING and overdue:
        return RunAction.GIVE_UP
    return RunAction.WAIT


def end_in_words(exit_status: int) -> str | None:
    """What ended a run other than its script: the runner's own statuses and signals. None for
    a status that the script itself gave.
    """
    if exit_status == STATUS_TIME_LIMIT:
        return "was ended because its time limit was over"
    if exit_status == STATUS_NOT_STARTED:
        return "could not be started"
    if exit_status <= 128:
        return None
    number = exit_status - 128
    if number == SIGTERM:
        return "was told to stop"
    if number == SIGKILL:
        return "was killed, most likely because the server ran out of memory"
    return f"was ended by signal {number}"
