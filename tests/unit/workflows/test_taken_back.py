"""What remains of jobs that did not reach their end: servers, sessions, names."""

from __future__ import annotations

from datetime import timedelta

import pytest

from managed.domain.errors import Json, NotFound
from managed.domain.jobs import JobKind, JobStatus, StepStatus
from managed.domain.secrets import SecretPurpose
from managed.domain.servers import PowerState, ServerStatus
from managed.workflows import heartbeat
from managed.workflows.steps import Done, Outcome, StepContext
from tests.support.workflows import SERVER_ID, Observer, WorkflowBench, compressed

FAILURE: dict[str, Json] = {"code": "evidence-missing", "detail": "it went wrong"}


def open_session_id(bench: WorkflowBench) -> str:
    session = bench.sessions.current(SERVER_ID)
    assert session is not None
    return session.session_id


def lose_node_after_rescue(bench: WorkflowBench) -> Observer:
    """From the moment when a rescue session answers, nothing can be had from the node."""

    def observe(_context: StepContext, name: str, outcome: Outcome | None) -> None:
        if name == "boot_rescue" and isinstance(outcome, Done):
            bench.hypervisor.available = False

    return observe


# ---------------------------------------------------------------- create


def test_a_create_on_a_node_that_never_answers_frees_the_name(bench: WorkflowBench) -> None:
    bench.hypervisor.available = False

    job = bench.finish(JobKind.CREATE)

    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "hypervisor-unavailable"
    assert bench.inventory.by_name("one") is None
    with pytest.raises(NotFound):
        bench.vault.secret(SERVER_ID, SecretPurpose.LOGIN_KEY)


def test_a_server_that_was_made_stays_on_record_while_its_node_does_not_answer(
    bench: WorkflowBench,
) -> None:
    bench.observe = lose_node_after_rescue(bench)

    job = bench.finish(JobKind.CREATE)

    assert job.status is JobStatus.FAILED
    assert bench.inventory.by_name("one") is not None, "somebody must be able to delete it"
    bench.observe = lambda _context, _name, _outcome: None
    bench.hypervisor.available = True
    assert bench.finish(JobKind.DELETE).status is JobStatus.SUCCEEDED
    assert bench.power is PowerState.ABSENT
    assert bench.sessions.current(SERVER_ID) is None


# ---------------------------------------------------------------- restore


@pytest.mark.parametrize("name", ["manifest", "layout"])
def test_evidence_that_is_not_what_was_kept_is_noticed_before_the_server_is_touched(
    bench: WorkflowBench, name: str
) -> None:
    bench.exists()
    kept = getattr(bench.catalogue.get(bench.has_backup()), name)
    good = bench.objects.get(kept.key)
    bench.objects.put(kept.key, good + (compressed("") if name == "manifest" else b" "))

    job = bench.finish(JobKind.RESTORE)

    assert job.status is JobStatus.FAILED
    assert [step.name for step in job.steps] == ["choose"]
    assert (bench.power, bench.server.status) == (PowerState.RUNNING, ServerStatus.ACTIVE)


@pytest.mark.parametrize("running", [True, False])
def test_a_restore_that_never_began_leaves_the_server_as_it_was(
    bench: WorkflowBench, running: bool
) -> None:
    bench.exists()
    bench.has_backup()
    if not running:
        bench.finish(JobKind.POWER, action="stop")
    bench.cancel_at("boot_rescue", done=True)

    assert bench.finish(JobKind.RESTORE).status is JobStatus.CANCELLED

    assert bench.power is (PowerState.RUNNING if running else PowerState.STOPPED)
    assert bench.server.status is ServerStatus.ACTIVE


def test_a_restore_that_failed_on_the_disk_leaves_a_broken_server(bench: WorkflowBench) -> None:
    bench.exists()
    bench.has_backup()
    bench.failures["restore_system"] = FAILURE

    job = bench.finish(JobKind.RESTORE)

    assert job.status is JobStatus.FAILED
    assert (bench.power, bench.server.status) == (PowerState.STOPPED, ServerStatus.BROKEN)
    assert bench.sessions.current(SERVER_ID) is None


def test_a_broken_restore_inside_a_session_of_the_staffs_leaves_them_their_session(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    bench.has_backup()
    bench.finish(JobKind.RESCUE)
    session_id = open_session_id(bench)
    bench.failures["restore_system"] = FAILURE

    bench.finish(JobKind.RESTORE)

    assert bench.server.status is ServerStatus.BROKEN
    assert open_session_id(bench) == session_id
    assert bench.power is PowerState.RESCUE
    bench.server_system = None
    assert bench.finish(JobKind.UNRESCUE).status is JobStatus.FAILED
    assert bench.server.status is ServerStatus.BROKEN


# ---------------------------------------------------------------- rescue


def test_a_server_is_active_again_only_when_it_has_booted(bench: WorkflowBench) -> None:
    bench.exists()
    system = bench.server_system
    seen = []
    for boots in (False, True):
        bench.finish(JobKind.RESCUE)
        bench.server_system = system if boots else None
        seen.append((bench.finish(JobKind.UNRESCUE).status, bench.server.status))

    assert seen == [
        (JobStatus.FAILED, ServerStatus.BROKEN),
        (JobStatus.SUCCEEDED, ServerStatus.ACTIVE),
    ]


def test_a_session_whose_undo_failed_is_ended_by_the_clock(bench: WorkflowBench) -> None:
    bench.exists()
    bench.has_backup()

    bench.observe = lose_node_after_rescue(bench)
    job = bench.finish(JobKind.RESTORE)
    bench.observe = lambda _context, _name, _outcome: None
    bench.hypervisor.available = True

    assert [s.status for s in job.steps if s.status.is_undo] == [StepStatus.UNDO_FAILED]
    assert [left.server_id for left in bench.sessions.expired(bench.clock())] == [SERVER_ID]
    assert bench.finish(JobKind.UNRESCUE).status is JobStatus.SUCCEEDED
    assert bench.sessions.current(SERVER_ID) is None


def test_a_rescue_that_goes_on_in_an_open_session_says_when_it_ends(bench: WorkflowBench) -> None:
    bench.exists()
    bench.finish(JobKind.RESCUE, hours=1)
    bench.clock.pass_time(minutes=30)
    bench.finish(JobKind.RESCUE, hours=2)

    session = bench.sessions.current(SERVER_ID)
    assert session is not None
    assert session.expires_at == bench.clock() + timedelta(hours=2)


def test_a_rescue_taken_back_in_a_session_that_was_open_before_leaves_it(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    bench.finish(JobKind.RESCUE)
    session_id = open_session_id(bench)
    bench.cancel_at("boot_rescue", done=False)

    job = bench.finish(JobKind.RESCUE)

    assert job.status is JobStatus.CANCELLED
    assert [s.status for s in job.steps if s.status.is_undo] == [StepStatus.UNDONE]
    assert open_session_id(bench) == session_id
    assert bench.power is PowerState.RESCUE


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("ends", [JobStatus.CANCELLED, JobStatus.FAILED])
def test_a_rescue_that_is_taken_back_starts_no_server_that_was_off(
    bench: WorkflowBench, running: bool, ends: JobStatus
) -> None:
    bench.exists(running=running)
    if ends is JobStatus.CANCELLED:
        bench.cancel_at("boot_rescue", done=False)
    else:
        bench.answers = lambda _answer: None

    assert bench.finish(JobKind.RESCUE).status is ends

    assert bench.power is (PowerState.RUNNING if running else PowerState.STOPPED)
    assert bench.sessions.current(SERVER_ID) is None


@pytest.mark.parametrize("stalls", ["before", "after"])
def test_a_worker_that_stood_still_harms_no_session_that_began_meanwhile(
    bench: WorkflowBench, monkeypatch: pytest.MonkeyPatch, stalls: str
) -> None:
    """It wakes before, or after, it has the node end the session that it found."""
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 60)
    bench.exists()
    bench.finish(JobKind.RESCUE)
    leaves = bench.submit(JobKind.UNRESCUE)
    end_rescue = bench.hypervisor.end_rescue
    seen: list[object] = []

    def stand_still() -> None:
        bench.hypervisor.end_rescue = end_rescue  # type: ignore[method-assign]
        bench.clock.pass_time(seconds=31)
        assert bench.follow(leaves).status is JobStatus.SUCCEEDED
        assert bench.finish(JobKind.RESCUE).status is JobStatus.SUCCEEDED
        seen.append(open_session_id(bench))

    def end_then(server_id: str, session_id: str) -> None:
        if stalls == "before":
            stand_still()
        end_rescue(server_id, session_id)
        if stalls == "after":
            stand_still()

    bench.hypervisor.end_rescue = end_then  # type: ignore[method-assign]
    bench.follow(leaves)

    session_id = open_session_id(bench)
    assert seen == [session_id]
    assert (bench.power, bench.server.status) == (PowerState.RESCUE, ServerStatus.RESCUE)
    assert bench.hypervisor.rescue_sessions() == {SERVER_ID: session_id}
    assert bench.vault.secret(session_id, SecretPurpose.LOGIN_KEY)
