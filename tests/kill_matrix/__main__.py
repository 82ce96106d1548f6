"""The whole matrix: `python -m tests.kill_matrix`, or `make kill-matrix`. Takes about an hour.

Writes docs/kill-matrix.md. Exit status 1 when a job did not end well; its kills are then carried
out once more, one to a job, to tell which of them it was.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from managed.domain.jobs import JobKind
from tests.kill_matrix.boundaries import boundaries_of
from tests.kill_matrix.lanes import carry_out_all, managed_cells
from tests.kill_matrix.plans import Carried, rotations, singles
from tests.kill_matrix.report import Circumstances, matrix
from tests.kill_matrix.running import clean_run
from tests.kill_matrix.servers import ManagedCell

_REPOSITORY = Path(__file__).parents[2]
_REPORT = _REPOSITORY / "docs" / "kill-matrix.md"
_KINDS = (JobKind.PATCH, JobKind.BACKUP)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--installations", type=int, default=2)
    parser.add_argument("--lanes", type=int, default=2, help="servers of each installation")
    parser.add_argument("--singly", action="store_true", help="one kill to a job; takes hours")
    parser.add_argument("--report", type=Path, default=_REPORT)
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(1))
    state = Path(os.environ.get("MANAGED_TEST_STATE", _REPOSITORY / "var" / "cells"))
    began, commit = time.monotonic(), _commit()
    with ExitStack() as stack:
        servers = []
        for _ in range(given.installations):
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="kill-matrix-"))
            servers += stack.enter_context(managed_cells(given.lanes, state, Path(directory)))
        carried = _carry_out(servers, given.singly)
    seconds = time.monotonic() - began
    run = Circumstances(datetime.now(UTC), commit, seconds, given.installations, given.lanes)
    given.report.write_text(matrix(carried, run))
    return 1 if any(found.problems for found in carried) else 0


def _carry_out(servers: list[ManagedCell], singly: bool) -> list[Carried]:
    """Every kill; those of jobs that did not end well once more, one to a job."""
    plans = []
    for kind in _KINDS:
        with ThreadPoolExecutor(len(servers)) as threads:
            waiting = set.union(*threads.map(partial(clean_run, kind), servers))
        plans += rotations(boundaries_of(kind, waiting))
    if singly:
        return carry_out_all([one for plan in plans for one in singles(plan)], servers, _say)
    carried = carry_out_all(plans, servers, _say)
    again = [one for found in carried if found.problems for one in singles(found.plan)]
    return carried + carry_out_all(again, servers, _say)


def _say(carried: Carried) -> None:
    said = "; ".join(carried.problems) or "well"
    sys.stdout.write(f"{carried.plan.kind} {carried.job_id} {carried.seconds:.0f} s: {said}\n")
    for each in carried.kills:
        seconds = "" if each.seconds is None else f"{each.seconds:.0f} s"
        sys.stdout.write(
            f"    {each.kill.boundary}: {each.kill.victim} ({each.processes}) {seconds}\n"
        )
    sys.stdout.flush()


def _commit() -> str:
    command = ("git", "-C", str(_REPOSITORY), "rev-parse", "--short", "HEAD")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
