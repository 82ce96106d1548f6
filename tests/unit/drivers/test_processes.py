"""Which processes are still a child's, and which only happen to have its number."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from managed.drivers import processes
from managed.drivers.processes import ProcessIdentity, ProcessStatus

SLEEP = ["sleep", "100"]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def identity(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    found = processes.identity_of(process.pid)
    assert found is not None
    return found


def test_names_with_parentheses_are_read() -> None:
    line = "12 (a) R (b) S 1 12 12 " + " ".join(["0"] * 15) + " 777 0"

    assert processes.parsed_stat(line) == ProcessStatus(12, "S", 1, 12, 777)


def test_descendants_are_found_at_every_depth() -> None:
    tree = [ProcessStatus(pid, "S", parent, pid, 0) for pid, parent in ((2, 1), (3, 2), (9, 4))]

    assert sorted(processes.descendants(1, tree)) == [2, 3]


def test_an_identity_survives_json(child: subprocess.Popen[bytes]) -> None:
    known = identity(child)

    assert ProcessIdentity.from_json(known.as_json()) == known


def test_a_survivor_is_ended(child: subprocess.Popen[bytes]) -> None:
    assert processes.end_survivors(identity(child), grace=2) == (child.pid,)
    assert child.wait(timeout=5) == -signal.SIGTERM


def test_a_survivor_that_ignores_term_is_killed() -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True)\n"
        "while True: time.sleep(9)"
    )
    stubborn = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()

    assert processes.end_survivors(identity(stubborn), grace=0.2) == (stubborn.pid,)
    assert stubborn.wait(timeout=5) == -signal.SIGKILL
    stubborn.stdout.close()


@pytest.mark.parametrize("started", ["another-boot.1.2", ""])
def test_a_recycled_pid_is_never_touched(child: subprocess.Popen[bytes], started: str) -> None:
    known = identity(child)
    recycled = dataclasses.replace(known, started=started or known.started + "9")

    assert not processes.is_running(recycled)
    assert processes.end_survivors(recycled) == ()
    assert child.poll() is None


def test_who_left_the_group_is_found_by_its_mark(child: subprocess.Popen[bytes]) -> None:
    known = identity(child)
    marked = subprocess.Popen(
        SLEEP, start_new_session=True, env={**os.environ, processes.MARK_VARIABLE: known.mark}
    )
    child.kill()
    child.wait()

    assert processes.survivors(known) == (marked.pid,)
    assert processes.end_survivors(known) == (marked.pid,)
    marked.wait(timeout=5)


def test_the_dead_have_no_identity(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert processes.identity_of(child.pid) is None, "a zombie does not run"
