"""The set-up script when somebody interrupts it; a stand-in for Python takes for ever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from managed.drivers.processes import running_processes
from tests.support.waiting import wait_until

_SCRIPT = Path(__file__).parents[2] / "scripts" / "bootstrap.sh"
# Knows its version; making an environment takes until it is ended.
_PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 0
echo $$ >"$PIDS"
exec sleep 1000
"""


@contextmanager
def setup(clone: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "PATH": f"{clone}/programs:{os.environ['PATH']}",
        "PIDS": str(clone / "pid"),
        "SKIP_APT": "1",
    }
    # It heeds signals, also where whoever runs the tests ignores them (nohup).
    process = subprocess.Popen(
        ["env", "--default-signal", clone / "scripts" / "bootstrap.sh"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for folder in ("scripts", "programs"):
        (tmp_path / folder).mkdir()
    shutil.copy(_SCRIPT, tmp_path / "scripts")
    (tmp_path / "scripts" / "packages.txt").touch()
    (tmp_path / "requirements.txt").touch()
    python = tmp_path / "programs" / "python3"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    return tmp_path


def wait_for_work(clone: Path) -> int:
    pid = clone / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().strip(), timeout=30, what="it is at work")
    return int(pid.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_it_runs_ends_with_it(clone: Path, number: signal.Signals) -> None:
    with setup(clone) as process:
        child = wait_for_work(clone)
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "setup stopped: interrupted" in said
    assert child not in {found.pid for found in running_processes()}


def test_a_second_one_says_that_it_waits(clone: Path) -> None:
    with setup(clone) as first:
        wait_for_work(clone)
        with setup(clone) as second:
            assert second.stdout is not None
            assert second.stdout.readline().startswith("Another setup is at work")
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=30)
