"""Every workflow with a worker that dies after each call of each step, before that is on record."""

from __future__ import annotations

import pytest

from managed.domain.errors import Json
from managed.domain.jobs import Job, JobKind, JobStatus, StepStatus
from managed.domain.servers import PowerState, ServerStatus
from managed.workflows.registry import current_workflow
from tests.support.workflows import OLD_SYSTEM, SERVER_ID, WorkflowBench

PARAMETERS: dict[JobKind, dict[str, Json]] = {
    JobKind.POWER: {"action": "stop"},
    JobKind.RESTORE_FILES: {"paths": ["/srv"], "target": "in-place"},
}
CANCELLED_AT = [
    (kind, step.name)
    for kind in (
        JobKind.CREATE,
        JobKind.DELETE,
        JobKind.RESTORE,
        JobKind.RESCUE,
        JobKind.BACKUP,
        JobKind.HARDEN,
    )
    for step in current_workflow(kind).steps
]
# Its other steps are those of a backup.
CANCELLED_AT += [(JobKind.RESTORE_FILES, step) for step in ("look", "take", "send", "restore")]


def ready_for(bench: WorkflowBench, kind: JobKind) -> None:
    """The world as it is before such a job."""
    if kind is JobKind.CREATE:
        return
    bench.exists(ServerStatus.NEW if kind is JobKind.ENROL else ServerStatus.ACTIVE)
    if kind in (JobKind.RESTORE, JobKind.RESTORE_FILES):
        bench.has_backup()
    if kind in (JobKind.UNRESCUE, JobKind.DELETE):
        assert bench.finish(JobKind.RESCUE).status is JobStatus.SUCCEEDED
    bench.runs.started.clear()


def require_original_state(bench: WorkflowBench, kind: JobKind, job: Job) -> None:
    """After a job that was taken back the server is as it was, or is called broken; only what was
    seen to be well after a restore stays.
    """
    if kind is JobKind.CREATE:
        assert bench.inventory.by_name("one") is None
        assert bench.power is PowerState.ABSENT
        assert bench.sessions.current(SERVER_ID) is None
    if kind is JobKind.DELETE:
        assert bench.power is PowerState.RESCUE
        assert bench.server.status is ServerStatus.RESCUE
    if kind in (JobKind.RESCUE, JobKind.RESTORE):
        assert bench.sessions.current(SERVER_ID) is None
        untouched = bench.disk.decode() == OLD_SYSTEM
        is_well = untouched or job.done_step("check") or job.has_failed("check")
        assert bench.server.status is (ServerStatus.ACTIVE if is_well else ServerStatus.BROKEN)
        assert bench.power is PowerState.RUNNING or not untouched


@pytest.mark.parametrize("kind", JobKind)
def test_every_step_can_be_done_twice(bench: WorkflowBench, kind: JobKind) -> None:
    ready_for(bench, kind)
    bench.kills = True

    job = bench.finish(kind, **PARAMETERS.get(kind, {}))

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert [step.name for step in job.steps] == [step.name for step in current_workflow(kind).steps]
    assert len(bench.runs.started) == len(set(bench.runs.started))
    assert not job.warnings


@pytest.mark.parametrize(("kind", "step"), CANCELLED_AT)
@pytest.mark.parametrize("done", [False, True], ids=["begun", "done"])
def test_every_job_can_be_cancelled_and_taken_back_twice(
    bench: WorkflowBench, kind: JobKind, step: str, done: bool
) -> None:
    ready_for(bench, kind)
    bench.kills = True
    bench.cancel_at(step, done=done)

    job = bench.finish(kind, **PARAMETERS.get(kind, {}))

    assert all(s.status is StepStatus.UNDONE for s in job.steps if s.status.is_undo), job.warnings
    if job.status is JobStatus.CANCELLED:
        require_original_state(bench, kind, job)
    else:
        assert job.status is JobStatus.SUCCEEDED, job.error
