"""A worker killed with -9 in a step: the job goes on elsewhere, nothing runs twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine as Database

from managed.domain.jobs import JobStatus
from managed.drivers.processes import process_status
from tests.support.engine_process import LEASE
from tests.support.jobs import JobBench
from tests.support.waiting import wait_until


def start_engine(
    url: str, job_id: str, folder: Path, ahead: timedelta = timedelta()
) -> subprocess.Popen[str]:
    """A worker whose clock is so much ahead of the others'."""
    given = (url, job_id, str(folder), str(ahead.total_seconds()))
    command = [sys.executable, "-m", "tests.support.engine_process", *given]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_job_of_a_killed_worker_goes_on_and_its_child_is_ended_first(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    bench = JobBench(database, clock=lambda: datetime.now(UTC))
    job = bench.submit()
    victim = start_engine(database_url, job.job_id, tmp_path)
    child_file = tmp_path / "child"
    wait_until(
        lambda: child_file.exists() and child_file.read_text(), timeout=60, what="a child works"
    )
    child = int(child_file.read_text())
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    status = process_status(child)
    assert status is not None
    assert not status.is_dead, "the child outlives its worker, as ansible's forks do"

    successor = start_engine(database_url, job.job_id, tmp_path, ahead=2 * LEASE)
    output, _ = successor.communicate(timeout=180)
    assert output.split()[-1:] == ["ended"]
    ended = bench.queue.job(job.job_id)
    assert ended.status is JobStatus.SUCCEEDED, ended.error
    assert (tmp_path / "first").read_text() == "ran\n", "a recorded step is not run again"
    assert [step.name for step in ended.steps] == ["first", "second"]
    survivor = process_status(child)
    assert survivor is None or survivor.is_dead
    types = bench.event_types(job)
    assert types.count("survivor_ended") == 1
    assert types.count("step_done") == 2
