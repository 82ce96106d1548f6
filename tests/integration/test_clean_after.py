"""A test process that is killed leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clean_after import REPOSITORY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

PROGRAM = """
import sys, time
from pathlib import Path
from tests.support.clean_after import cleaned_after_death

state = Path(sys.argv[1])
with cleaned_after_death(state):
    (state / "servers").mkdir(parents=True)
    print("there", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_test_process_has_started_is_ended(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = (sys.executable, "-c", PROGRAM, str(state))
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.kill()
        process.wait()
    wait_until(lambda: not state.exists(), timeout=60, what="the state folder is removed")
