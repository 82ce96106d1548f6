"""Processes that work like restic: how they are read, judged and ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from managed.domain.errors import EvidenceMissing
from managed.drivers.children import LocalChildren
from managed.drivers.processes import identity_of
from managed.drivers.restic import process
from managed.drivers.restic.process import run_for_lines, started
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


def test_restic_dies_with_the_process_that_runs_it(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from managed.drivers.restic.process import run_for_lines\n"
        "run_for_lines(('sleep', '300'), {}, print, lambda group: print(group, flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert identity_of(child) is not None
    parent.kill()
    parent.communicate()
    wait_until(lambda: identity_of(child) is None, timeout=10, what="the child's end")


def test_what_a_listener_raises_ends_restic() -> None:
    groups: list[int] = []

    def fail(_line: str) -> None:
        raise KeyError("the lease is lost")

    with pytest.raises(KeyError, match="the lease is lost"):
        run_for_lines(("sh", "-c", "echo line; sleep 300"), {}, fail, groups.append)
    assert [identity_of(group) for group in groups] == [None]


def test_one_that_has_ended_before_it_could_be_registered_is_judged_by_how_it_ended() -> None:
    def register(group: int) -> None:
        wait_until(lambda: identity_of(group) is None, timeout=10, what="its end")
        LocalChildren().describe(group)

    assert run_for_lines(("sh", "-c", "exit 10"), {}, print, register).status == 10


def test_output_that_is_not_read_makes_restic_wait(tmp_path: Path) -> None:
    """A listing may be larger than our memory."""
    counter = tmp_path / "lines"
    program = f"for n in $(seq 100000); do echo $n; echo $n > {counter}; done"
    with started(("sh", "-c", program), {}) as running:
        lines = running.lines()
        assert [next(lines) for _ in range(3)] == ["1\n", "2\n", "3\n"]
        assert int(counter.read_text() or 0) < 50_000
    assert int(counter.read_text() or 0) < 50_000


def test_a_line_longer_than_any_of_restics_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LONGEST_LINE", 1000)
    with pytest.raises(EvidenceMissing, match="longer than 1000"):
        run_for_lines(("sh", "-c", "yes | tr -d '\\n'"), {}, print)


def test_a_killed_command_is_no_success() -> None:
    ended = run_for_lines(("sh", "-c", "echo why >&2; kill -9 $$"), {}, print)
    assert ended.status != 0
    assert ended.stderr == "why"
