"""No green without evidence in patches and power, and none lost to a worker that died."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from managed.domain.connections import CommandResult
from managed.domain.errors import Json
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.servers import PowerState
from managed.workflows.steps import Outcome, StepContext, Wait
from tests.support.workflows import SERVER_ID, WorkflowBench

# ---------------------------------------------------------------- patch


def test_a_server_that_is_down_for_a_reboot_that_nobody_recorded_is_waited_for(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    bench.kills = True
    assert bench.server_system is not None
    system = bench.server_system

    def observe(context: StepContext, name: str, outcome: Outcome | None) -> None:
        if name == "reboot":
            system.is_up = not system.is_up if isinstance(outcome, Wait) else True

    bench.observe = observe
    job = bench.finish(JobKind.PATCH)

    assert job.status is JobStatus.SUCCEEDED, job.error
    rebooted = job.done_step("reboot")
    assert rebooted is not None
    assert rebooted.result["rebooted"] is True


def test_a_reboot_that_did_not_happen_is_asked_for_again_and_never_green(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    assert bench.server_system is not None
    asked: list[str] = []
    usual = bench.server_system.commands["systemctl"]

    def systemctl(_argv: Sequence[str], stdin: bytes) -> CommandResult:
        asked.append("reboot")
        return usual(("systemctl", "nothing" if len(asked) == 1 else "reboot"), stdin)

    bench.server_system.commands["systemctl"] = systemctl
    job = bench.finish(JobKind.PATCH)

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert len(asked) == 2


def test_without_the_boot_that_the_update_ran_on_no_reboot_is_believed(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    bench.answers = lambda answer: {**answer, "boot_id": ""} if "exit_status" in answer else answer

    job = bench.finish(JobKind.PATCH)

    assert job.error is not None
    assert job.error["code"] == "evidence-missing"


# ---------------------------------------------------------------- power


@pytest.mark.parametrize(
    "answer", [{"error": {"code": "hypervisor-error", "detail": "no"}}, {"state": "stopped"}]
)
def test_a_server_that_still_runs_was_not_stopped(
    bench: WorkflowBench, answer: dict[str, Json]
) -> None:
    bench.exists()

    def tell(_answer: dict[str, Json]) -> dict[str, Json]:
        bench.hypervisor.start(SERVER_ID)
        return answer

    bench.answers = tell
    job = bench.finish(JobKind.POWER, action="stop")

    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "evidence-missing"


def test_a_server_that_does_not_shut_down_loses_its_power(bench: WorkflowBench) -> None:
    bench.exists()
    bench.answers = lambda _answer: None

    job = bench.finish(JobKind.POWER, action="stop")

    assert job.status is JobStatus.SUCCEEDED
    assert job.warnings
    assert bench.power is PowerState.STOPPED
