"""Hardening that does not hold: the server is as it was, by our hand or by its own clock."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from managed.domain.connections import CommandResult
from managed.domain.errors import CommandFailed
from managed.domain.jobs import Job, JobKind, JobStatus, StepStatus
from managed.drivers.fakes.playbooks import PlaybookCall
from managed.ports import PlaybookReport
from managed.workflows.steps import Outcome, StepContext
from tests.support.hardening import CONFIRMED_SETTINGS, HARDENED, SSHD_SETTINGS, Lockout
from tests.support.workflows import SERVER_ID, Observer, WorkflowBench, healthy

EARLIER = b"what an earlier job confirmed\n"


@pytest.fixture(params=[None, EARLIER], ids=["never-hardened", "hardened-before"])
def before(request: pytest.FixtureRequest, bench: WorkflowBench) -> bytes | None:
    """What of ours is in force on the server before the job."""
    bench.exists()
    settings: bytes | None = request.param
    if settings is not None:
        server_files(bench).update({SSHD_SETTINGS: settings, CONFIRMED_SETTINGS: settings})
    return settings


def server_files(bench: WorkflowBench) -> dict[str, bytes]:
    assert bench.server_system is not None
    return bench.server_system.files


def undone(job: Job) -> list[StepStatus]:
    return [step.status for step in job.steps if step.status.is_undo]


def require_as_before(bench: WorkflowBench, before: bytes | None) -> None:
    assert server_files(bench).get(SSHD_SETTINGS) == before
    assert server_files(bench).get(CONFIRMED_SETTINGS) == before


@pytest.mark.parametrize("lockout", [Lockout.NEW_LOGINS, Lockout.EVERYBODY])
def test_who_is_locked_out_gets_in_as_before(
    bench: WorkflowBench, before: bytes | None, lockout: Lockout
) -> None:
    bench.kills = True
    bench.shell.lockout = lockout

    job = bench.finish(JobKind.HARDEN)

    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "login-refused"
    assert undone(job) == [StepStatus.UNDONE]
    require_as_before(bench, before)


def test_what_locks_nobody_out_is_said_to_stay(bench: WorkflowBench) -> None:
    bench.exists()
    bench.shell.lockout = Lockout.NEW_LOGINS

    job = bench.finish(JobKind.HARDEN)

    assert [w for w in job.warnings if "90-managed.conf" in w and "login.defs" in w] != []


@pytest.mark.parametrize("broken", ["check_forwarding", "check_after"])
def test_nothing_is_confirmed_before_backups_and_health_are_seen_to_work(
    bench: WorkflowBench, before: bytes | None, broken: str
) -> None:
    if broken == "check_forwarding":
        bench.gateway.is_up = False
    else:
        bench.observe = break_health_after(bench, "second_login")

    job = bench.finish(JobKind.HARDEN)

    assert job.status is JobStatus.FAILED
    assert job.has_failed(broken)
    assert "confirm_hardening" not in [call.playbook for call in bench.playbooks.calls]
    assert undone(job) == [StepStatus.UNDONE]
    require_as_before(bench, before)


def test_a_confirmation_that_nobody_heard_of_is_taken_back(
    bench: WorkflowBench, before: bytes | None
) -> None:
    confirm = bench.playbooks.answers["confirm_hardening"]

    def confirm_and_fail(call: PlaybookCall) -> PlaybookReport:
        confirm(call)
        raise CommandFailed("the connection was lost")

    bench.playbooks.answers["confirm_hardening"] = confirm_and_fail

    job = bench.finish(JobKind.HARDEN)

    assert job.status is JobStatus.FAILED
    assert undone(job) == [StepStatus.UNDONE]
    require_as_before(bench, before)


def test_a_trial_that_ended_meanwhile_is_not_called_confirmed(
    bench: WorkflowBench, before: bytes | None
) -> None:
    def observe(_context: StepContext, name: str, _outcome: Outcome | None) -> None:
        if name == "check_after":
            bench.hardening.ends_at = bench.clock()

    bench.observe = observe

    job = bench.finish(JobKind.HARDEN)

    assert job.status is JobStatus.FAILED
    require_as_before(bench, before)


def test_hardening_that_held_keeps_its_settings(bench: WorkflowBench) -> None:
    bench.exists()

    for _ in range(2):
        assert bench.finish(JobKind.HARDEN).status is JobStatus.SUCCEEDED
        bench.clock.pass_time(hours=1)
        bench.shell.boot_id(bench.world.endpoint(SERVER_ID))
        assert server_files(bench)[SSHD_SETTINGS] == HARDENED


def break_health_after(bench: WorkflowBench, step: str) -> Observer:
    def observe(_context: StepContext, name: str, _outcome: Outcome | None) -> None:
        assert bench.server_system is not None
        server = bench.server_system
        if name == step:
            ill = {**healthy(server.boot_id), "failed_units": ["web.service"]}

            def health(_argv: Sequence[str], _stdin: bytes) -> CommandResult:
                return CommandResult(0, json.dumps(ill), "")

            server.commands["python3"] = health

    return observe
