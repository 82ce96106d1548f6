"""Ends what a test process leaves behind when it is killed: VMs, cells, services below a folder.

A fixture ends its own things; but a test run that is interrupted while it works in several
processes, or killed, comes to no `finally`. So a process of its own waits for that.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from managed.lab.cells import cells_down
from managed.lab.demo_service import clean_up
from managed.settings import Settings

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def cleaned_after_death(state: Path) -> Iterator[None]:
    """Inside, the death of this process ends everything that stands in this state folder. What
    ends it in the usual way stands inside too: this process may be killed in the middle of that.
    """
    command = (sys.executable, "-m", "tests.support.clean_after", str(os.getpid()), str(state))
    guardian = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    try:
        yield
    finally:
        guardian.terminate()
        guardian.wait()


def main(process: int, state: Path) -> None:
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(process)], [], [])
    # The cells first: without their records in the state folder nobody finds their processes.
    cells_down(state)
    clean_up(Settings(state_dir=state), lambda _text: None)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
