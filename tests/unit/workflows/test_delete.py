"""A server is deleted on its node and in the records, or it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from managed.domain.errors import NotFound, ServerBusy
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.secrets import SecretPurpose
from managed.workflows.steps import Outcome, StepContext
from tests.support.workflows import SERVER_ID, WorkflowBench


def test_a_server_that_has_gone_can_be_deleted(bench: WorkflowBench) -> None:
    bench.exists()
    bench.hypervisor.destroy_server(SERVER_ID)

    assert bench.finish(JobKind.DELETE).status is JobStatus.SUCCEEDED
    assert bench.inventory.by_name("one") is None


def test_deleting_ends_the_rescue_session_with_its_keys(bench: WorkflowBench) -> None:
    bench.exists()
    bench.finish(JobKind.RESCUE)
    session = bench.sessions.current(SERVER_ID)
    assert session is not None

    assert bench.finish(JobKind.DELETE).status is JobStatus.SUCCEEDED
    assert bench.sessions.current(SERVER_ID) is None
    assert bench.hypervisor.rescue_sessions() == {}
    with pytest.raises(NotFound):
        bench.vault.secret(session.session_id, SecretPurpose.LOGIN_KEY)


def test_a_delete_that_goes_before_a_create_finds_nothing_left_to_do(bench: WorkflowBench) -> None:
    deletes: list[str] = []

    def observe(_context: StepContext, name: str, _outcome: Outcome | None) -> None:
        if name == "boot_rescue" and not deletes:
            deletes.append(bench.submit(JobKind.DELETE))

    bench.observe = observe
    assert bench.finish(JobKind.CREATE).status is JobStatus.CANCELLED
    deleted = bench.follow(deletes[0])
    assert deleted.status is JobStatus.SUCCEEDED, deleted.error


def while_destroying(bench: WorkflowBench, act: Callable[[], object]) -> None:
    """Once, when the node has destroyed the server (or does not answer) and nobody knows yet."""
    destroy = bench.hypervisor.destroy_server

    def destroy_server(server_id: str) -> None:
        bench.hypervisor.destroy_server = destroy  # type: ignore[method-assign]
        try:
            destroy(server_id)
        finally:
            act()

    bench.hypervisor.destroy_server = destroy_server  # type: ignore[method-assign]


def test_nothing_goes_before_a_delete_that_has_begun_to_destroy(bench: WorkflowBench) -> None:
    bench.exists()
    refused: list[ServerBusy] = []

    def ask_for_a_rescue() -> None:
        with pytest.raises(ServerBusy) as refusal:
            bench.submit(JobKind.RESCUE)
        refused.append(refusal.value)

    while_destroying(bench, ask_for_a_rescue)

    assert bench.finish(JobKind.DELETE).status is JobStatus.SUCCEEDED
    assert bench.inventory.by_name("one") is None
    assert [error.details["job_kind"] for error in refused] == ["delete"]


def test_a_delete_that_cannot_destroy_has_failed_whoever_cancels(bench: WorkflowBench) -> None:
    """The node may have removed the server before it was heard of no more."""
    bench.exists()
    bench.hypervisor.available = False
    job_id = bench.submit(JobKind.DELETE)
    while_destroying(bench, lambda: bench.queue.cancel(job_id, "changed minds", bench.clock()))

    job = bench.follow(job_id)

    assert job.error is not None
    assert (job.status, job.error["code"]) == (JobStatus.FAILED, "hypervisor-unavailable")
