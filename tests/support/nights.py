"""A night to look at: jobs that ended well and badly, and texts that a hostile root has written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from managed.domain.errors import CommandFailed, Json, ManagedError
from managed.domain.events import NewEvent
from managed.domain.incoming import Asked
from managed.domain.jobs import Job, JobKind, JobStatus, StepResult, StepStatus
from managed.domain.requests import Action, ActionKind, Proposal
from managed.domain.servers import Server
from managed.domain.tickets import Ticket
from managed.storage import events
from managed.storage.database import writing
from managed.storage.intake import Delivery
from managed.storage.leases import LeasedJobs
from managed.wiring import Installation, utc_now

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\'"&{{ 7*7 }}'

HEALTH: Mapping[str, Json] = {
    "boot_id": "b1",
    "kernel": "6.1.0-41-amd64",
    "uptime_seconds": 5.0,
    "system_state": "running",
    "starting_units": [],
    "failed_units": [],
    "listeners": [],
    "filesystems": [],
    "dpkg_problems": [],
    "probes": [],
}

_RESCUE = Action(ActionKind.RESCUE)


class Worker:
    """Does to a job what a worker would: claims it, begins and records steps, ends it."""

    def __init__(self, installation: Installation, job: Job) -> None:
        self._store = LeasedJobs(installation.database)
        self._database = installation.database
        claimed = self._store.claim(job.job_id, "a worker", utc_now(), timedelta(hours=1))
        assert claimed is not None
        self.job = claimed[0]

    def begin(self, step: str) -> None:
        self.job = self._store.start_step(self.job, step, utc_now())
        self.say("step_started", step=step)

    def record(self, step: str, result: Mapping[str, Json], warnings: Sequence[str] = ()) -> None:
        self.begin(step)
        now = utc_now()
        done = StepResult(step, StepStatus.DONE, 1, now, now, result)
        self.job = self._store.record_step(self.job, done, warnings)

    def say(self, kind: str, **data: Any) -> None:
        with writing(self._database) as connection:
            events.append(connection, self.job.job_id, [NewEvent(utc_now(), kind, data)])

    def fail(self, step: str, error: ManagedError) -> None:
        """Give the step up: nothing is to be taken back, so the job ends with that."""
        self.begin(step)
        now = utc_now()
        failed = StepResult(step, StepStatus.FAILED, 1, now, now, {}, error.as_json())
        self.job = self._store.begin_undo(self.job, JobStatus.FAILED, error.as_json(), failed, now)
        self._store.finish(self.job, JobStatus.FAILED, now)

    def finish(self) -> None:
        self._store.finish(self.job, JobStatus.SUCCEEDED, utc_now())


def work_on(installation: Installation, server: Server, kind: JobKind) -> Worker:
    """A job that a worker has just claimed."""
    new = installation.new_job(server.server_id, kind, {}, "a test")
    return Worker(installation, installation.queue.submit(new, utc_now()))


def failed_job(installation: Installation, server: Server, message: str) -> Job:
    worker = work_on(installation, server, JobKind.BACKUP)
    worker.fail("take_snapshot", CommandFailed(message, hint="Look at the server."))
    return worker.job


def patched(installation: Installation, server: Server) -> Job:
    """A patch with its evidence: a kernel, a new package, a removed one, a reboot."""
    worker = work_on(installation, server, JobKind.PATCH)
    worker.record("check_before", {"health": {**HEALTH, "failed_units": ["old.service"]}})
    worker.record(
        "update",
        {
            "packages_before": {"linux": "6.1.0-41", "openssl": "3.0.16", "gone": "1", "vim": "2"},
            "packages_after": {"linux": "6.1.0-42", "openssl": "3.0.17", "came": "1", "vim": "2"},
        },
        ["vim is held back"],
    )
    worker.record("reboot", {"rebooted": True, "reasons": ["a new kernel"]})
    worker.record("check_after", {"health": {**HEALTH, "kernel": "6.1.0-42-amd64"}})
    worker.finish()
    return worker.job


def asked_by_ticket(
    installation: Installation,
    number: int,
    title: str,
    server: Server | None = None,
    action: Action = _RESCUE,
) -> str:
    """An open request, as the helpdesk's webhook makes one; returns its id."""
    now = utc_now()
    ticket = Ticket(number, str(number), title, number, title, "anna@example.org", "", True, now)
    proposal = Proposal(action, "a rule", "the text says that it does not boot")
    asked = Asked(ticket, proposal, server.server_id if server else None)
    taken = installation.intake.take_in(Delivery(f"delivery {number}", "0" * 64), asked, now)
    assert taken.request_id is not None
    return taken.request_id
