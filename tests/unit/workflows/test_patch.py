"""How long a patch waits for its updates."""

from __future__ import annotations

import json
from datetime import timedelta

from managed.domain.jobs import JobKind, JobStatus
from managed.drivers.libvirt.acceleration import TIME_SCALE_WITHOUT_KVM
from managed.server_scripts._apt import LOCK_WAIT
from managed.workflows.registry import current_workflow
from managed.workflows.steps import Outcome, StepContext, Wait
from tests.support.workflows import WorkflowBench


def test_updates_have_time_for_a_stage_that_begins_late_and_waits_for_the_lock(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    bench.hanging.add("apply_updates")
    limits: list[timedelta] = []

    def observe(_context: StepContext, name: str, outcome: Outcome | None) -> None:
        if name == "update" and isinstance(outcome, Wait):
            limits.append(outcome.limit)

    bench.observe = observe
    job = bench.finish(JobKind.PATCH)

    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "still-running"
    given = json.loads(str(bench.playbooks.calls[-1].variables["patch_request"]))["arguments"][0]
    last_stage = timedelta(seconds=json.loads(given)["time_limit"])
    assert last_stage > 2 * timedelta(seconds=LOCK_WAIT)
    assert limits[0] > last_stage + timedelta(seconds=LOCK_WAIT)
    assert current_workflow(JobKind.PATCH).time_limit > limits[0] * TIME_SCALE_WITHOUT_KVM
