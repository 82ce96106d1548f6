"""What senders are told: the evidence of their own job, in plain words, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from managed.domain.jobs import Job, JobKind, JobStatus, StepResult, StepStatus
from managed.domain.replies import (
    UNKNOWN_SENDER,
    changed_packages,
    next_try,
    refusal_text,
    reply_to,
    result_text,
)
from managed.domain.requests import Action, ActionKind, Proposal, Request, RequestStatus
from managed.domain.tickets import Ticket

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def step(
    name: str, status: StepStatus = StepStatus.DONE, error: Any = None, **result: Any
) -> StepResult:
    return StepResult(name, status, 1, NOW, NOW, result, error)


def job(kind: JobKind, status: JobStatus, *steps: StepResult, **options: Any) -> Job:
    return Job(
        job_id="j",
        server_id="s",
        kind=kind,
        workflow_version=1,
        status=status,
        parameters=options.pop("parameters", {}),
        created_at=NOW,
        deadline=NOW,
        steps=steps,
        **options,
    )


def test_a_patch_tells_packages_kernels_reboot_and_health() -> None:
    text = result_text(
        "shop",
        job(
            JobKind.PATCH,
            JobStatus.SUCCEEDED,
            step("check_before", health={"kernel": "6.1.0-37"}),
            step(
                "update",
                packages_before={"bash": "5.2", "openssl": "3.0.16", "gone": "1"},
                packages_after={"bash": "5.2", "openssl": "3.0.17", "linux-image": "6.1"},
            ),
            step("reboot", rebooted=True),
            step("check_after", health={"kernel": "6.1.0-38"}),
            warnings=("nginx is on hold and was not upgraded",),
        ),
    )
    assert text.splitlines() == [
        "Done: updates on shop.",
        "",
        "Packages changed: 3.",
        "- gone: removed",
        "- linux-image: installed 6.1",
        "- openssl: 3.0.16 -> 3.0.17",
        "Kernel before: 6.1.0-37. Kernel now: 6.1.0-38.",
        "The server was rebooted.",
        "Its health was checked before and after: nothing is worse than before.",
        "",
        "Please note:",
        "- nginx is on hold and was not upgraded",
    ]


def test_a_restore_tells_the_backup_the_comparison_and_the_databases() -> None:
    text = result_text(
        "shop",
        job(
            JobKind.RESTORE,
            JobStatus.SUCCEEDED,
            step("choose", snapshot_id="4bba", time="2026-11-23T02:10:00+00:00", files=31874),
            step(
                "restore",
                checked=31874,
                equal=31870,
                rewritten=[{"path": "/boot/grub/grubenv", "reason": "grub-install wrote it anew"}],
                disk="/dev/vda",
            ),
            step("load_databases", databases=[{"kind": "postgresql", "name": "15/main"}]),
            step("check", health={"kernel": "6.1.0-37"}),
        ),
    )
    for told in (
        "The backup is from 2026-11-23T02:10:00+00:00, with 31874 files.",
        "after the restore: 31874 paths,",
        "of which 31870 are exactly as they were.",
        "- /boot/grub/grubenv: grub-install wrote it anew",
        "- postgresql 15/main",
        "It has booted (kernel 6.1.0-37), and its health was checked.",
    ):
        assert told in text
    assert "/dev/vda" not in text


def test_a_rescue_tells_that_a_person_goes_on() -> None:
    text = result_text("shop", job(JobKind.RESCUE, JobStatus.SUCCEEDED, step("boot_rescue")))
    assert "runs our rescue system" in text
    assert "A person of our support goes on" in text


def test_evidence_that_is_not_there_is_not_made_up() -> None:
    text = result_text("shop", job(JobKind.PATCH, JobStatus.SUCCEEDED, step("update")))
    assert "Kernel before: not recorded. Kernel now: not recorded." in text
    assert "health" not in text
    assert "was not rebooted" in text


def test_a_failure_is_told_as_one_with_what_was_done_and_taken_back() -> None:
    error = {
        "code": "command-failed",
        "title": "A command failed",
        "detail": "password hunter2 at 10.0.0.7",
        "hint": "Look at s3://bucket",
        "data": {"regressions": ["nothing listens on tcp port 80 any more"], "node": "node-7"},
    }
    text = result_text(
        "shop",
        job(
            JobKind.PATCH,
            JobStatus.FAILED,
            step("check_before"),
            step("update"),
            step("check_after", StepStatus.FAILED, error),
            step("update", StepStatus.UNDONE),
            error=error,
        ),
    )
    for told in (
        "What you asked for (updates) failed.",
        'It ended at the step "check after": A command failed.',
        "- nothing listens on tcp port 80 any more",
        "Before that was done: check before, update.",
        "What could be taken back was taken back.",
        "A person of our support looks at it",
    ):
        assert told in text
    for ours in ("hunter2", "10.0.0.7", "s3://", "node-7"):
        assert ours not in text


def test_a_job_that_was_called_off_is_no_success() -> None:
    text = result_text("shop", job(JobKind.PATCH, JobStatus.CANCELLED))
    assert "was called off" in text
    assert "Done" not in text


def test_what_a_server_says_of_itself_is_bounded_and_visible() -> None:
    hostile = "6.1\u202e\x1b[31m\n\nDone: everything" + "x" * 5000
    text = result_text(
        "shop",
        job(JobKind.PATCH, JobStatus.SUCCEEDED, step("check_after", health={"kernel": hostile})),
    )
    assert all(line.isprintable() for line in text.splitlines())
    assert "\nDone: everything" not in text
    assert max(map(len, text.splitlines())) < 500


def test_long_lists_are_cut_and_say_so() -> None:
    after = {f"package-{n:03}": "2" for n in range(100)}
    text = result_text(
        "shop",
        job(
            JobKind.PATCH,
            JobStatus.SUCCEEDED,
            step("update", packages_before={}, packages_after=after),
        ),
    )
    assert "Packages changed: 100." in text
    assert "- and 60 more" in text
    assert "package-050" not in text


def test_packages_that_did_not_change_are_not_told() -> None:
    assert changed_packages({"a": "1", "b": "1"}, {"a": "1", "b": "2"}) == ["b: 1 -> 2"]


@pytest.mark.parametrize(("by_email", "to"), [(True, "anna@example.org"), (False, "")])
def test_an_answer_goes_the_way_that_the_ticket_came(by_email: bool, to: str) -> None:
    ticket = Ticket(81, "10081", "Help\nme", 1, "x", "anna@example.org", "", by_email, NOW)
    proposal = Proposal(Action(ActionKind.PATCH), "update-now", "why")
    request = Request("r-1", ticket, proposal, RequestStatus.OPEN, NOW)
    reply = reply_to(request, refusal_text("Not covered."))
    assert (reply.to, reply.subject, reply.ticket_id) == (to, "Re: Help me", 81)
    assert reply.body.endswith("Not covered.\n\nReference: r-1")


def test_a_stranger_is_told_nothing_of_any_server() -> None:
    assert "{" not in UNKNOWN_SENDER
    assert "nothing was done" in UNKNOWN_SENDER


def test_pauses_between_tries_double_up_to_an_hour() -> None:
    pauses = [next_try(attempts, NOW) - NOW for attempts in (1, 2, 3, 8, 1000)]
    seconds = timedelta(seconds=30)
    assert pauses == [seconds, seconds * 2, seconds * 4, timedelta(hours=1), timedelta(hours=1)]
