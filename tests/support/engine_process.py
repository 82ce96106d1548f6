"""An engine in a process of its own, to be killed: `python -m … DATABASE_URL JOB_ID FOLDER AHEAD`.

Its clock is so many seconds ahead. The job's second step starts a child that survives its worker,
and hangs the first time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from managed.domain.errors import CommandFailed
from managed.domain.jobs import JobKind
from managed.drivers.children import LocalChildren
from managed.drivers.processes import process_status
from managed.storage.database import open_database
from managed.storage.leases import LeasedJobs
from managed.workflows.engine import Engine
from managed.workflows.steps import Done, Outcome, Step, StepContext, Workflow
from managed.workflows.world import World

LEASE = timedelta(seconds=8)


def workflow(folder: Path) -> Workflow:
    def first(context: StepContext) -> Outcome:
        with (folder / "first").open("a") as file:
            file.write("ran\n")
        return Done({"by": context.job.lease.owner if context.job.lease else ""})

    def second(context: StepContext) -> Outcome:
        child_file = folder / "child"
        if child_file.exists():
            status = process_status(int(child_file.read_text()))
            if status is not None and not status.is_dead:
                raise CommandFailed("the child of the killed worker works on")
            return Done()
        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        context.register_child(child.pid)
        child_file.write_text(str(child.pid))
        child.wait()
        return Done()

    return Workflow(
        JobKind.PATCH, 1, (Step("first", first), Step("second", second)), timedelta(hours=1)
    )


def main(url: str, job_id: str, folder: str, ahead: str) -> None:
    engine = Engine(
        store=LeasedJobs(open_database(url)),
        workflows={(JobKind.PATCH, 1): workflow(Path(folder))},
        world=cast(World, None),
        children=LocalChildren(),
        clock=lambda: datetime.now(UTC) + timedelta(seconds=float(ahead)),
        stopwatch=time.monotonic,
        owner=f"process-{os.getpid()}",
        lease_for=LEASE,
        send=lambda _: None,
    )
    sys.stdout.write(engine.run(job_id) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
