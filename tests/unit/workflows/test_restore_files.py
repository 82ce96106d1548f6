"""Restores of files as workflows: what is decided before anything is touched, and what is passed
to whom.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from managed.domain.connections import CommandResult
from managed.domain.errors import Json
from managed.domain.jobs import Job, JobKind, JobStatus, StepStatus
from managed.domain.runs import RunRequest
from managed.domain.secrets import SecretPurpose
from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.domain.snapshots import account_of
from managed.drivers.fakes.runs import Performed
from managed.storage.database import writing
from tests.support.workflows import CONTENT, SERVER_ID, WorkflowBench

SOURCE_ID = "00000000-0000-4000-8000-000000000002"
SAFETY_STEPS = ("open_repository", "take", "find_snapshot", "keep_manifest", "verify")


@pytest.fixture
def server(bench: WorkflowBench) -> WorkflowBench:
    bench.exists()
    bench.has_backup()
    return bench


@pytest.fixture
def requests(server: WorkflowBench, monkeypatch: pytest.MonkeyPatch) -> list[RunRequest]:
    """All runs from now on."""
    seen: list[RunRequest] = []
    perform = server.runs.perform

    def noted(request: RunRequest) -> Performed:
        seen.append(request)
        return perform(request)

    monkeypatch.setattr(server.runs, "perform", noted)
    return seen


def restore(bench: WorkflowBench, *paths: str, **parameters: Json) -> Job:
    return bench.finish(JobKind.RESTORE_FILES, paths=list(paths), **parameters)


def result(job: Job, step: str) -> dict[str, Any]:
    record = job.done_step(step)
    assert record is not None, job.error
    return dict(record.result)


def test_beside_needs_no_safety_snapshot_and_restic_reads_through_the_gateway(
    server: WorkflowBench, requests: list[RunRequest]
) -> None:
    job = restore(server, "/srv/page")

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert all(result(job, step) == {"needed": False} for step in SAFETY_STEPS)
    [request] = requests
    given = json.loads(request.arguments[0])
    assert given["snapshot"] == server.taken["snapshot_id"]
    assert given["place"] == f"/var/restored/{job.job_id}"
    assert (given["paths"], given["entries"], given["size"]) == (["/srv/page"], 1, 7)
    assert set(request.secrets) == {
        *("RESTIC_PASSWORD", "RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD")
    }
    passwords = [request.secrets[f"RESTIC_{name}PASSWORD"].reveal() for name in ("", "REST_")]
    assert not [password for password in passwords if password in request.arguments[0]]


def test_in_place_first_keeps_what_is_there(server: WorkflowBench) -> None:
    job = restore(server, "/srv", "/srv/page", "/etc/hostname", target="in-place")

    assert job.status is JobStatus.SUCCEEDED, job.error
    records = server.catalogue.of_server(SERVER_ID)
    [safety] = [record for record in records if record.paths]
    assert safety.paths == ("/etc/hostname", "/srv")
    assert safety.verified_at is not None
    assert result(job, "restore")["safety_snapshot"] == safety.snapshot_id
    assert server.restored["place"].startswith("/var/lib/managed/restores/")


def test_nothing_is_replaced_when_the_safety_snapshot_is_not_proven(server: WorkflowBench) -> None:
    server.failures["take_backup"] = {"code": "evidence-missing", "detail": "the disk is full"}
    job = restore(server, "/srv", target="in-place")

    assert job.status is JobStatus.FAILED
    assert server.restored == {}


def test_what_is_not_there_now_needs_no_saving(server: WorkflowBench) -> None:
    server.present = set()
    job = restore(server, "/srv", target="in-place")

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert result(job, "take") == {"needed": False}


def test_nothing_is_replaced_when_nobody_can_tell_what_is_there(server: WorkflowBench) -> None:
    assert server.server_system is not None
    missing = CommandResult(127, "", "find: not found\n")
    server.server_system.commands["find"] = lambda _argv, _stdin: missing
    job = restore(server, "/srv", target="in-place")

    assert job.status is JobStatus.FAILED
    assert [step.name for step in job.steps] == ["choose", "look"]


@pytest.mark.parametrize(
    ("paths", "code"),
    [(["/srv/pag"], "not-found"), (["/srv", "/srv/gone"], "not-found"), (["srv"], "invalid-input")],
)
def test_what_cannot_be_restored_is_said_before_the_server_is_asked(
    server: WorkflowBench, paths: list[str], code: str
) -> None:
    job = restore(server, *paths)

    assert job.error is not None
    assert job.error["code"] == code
    assert [step.name for step in job.steps] == ["choose"]


def test_a_path_that_leads_through_a_symlink_now_is_refused(server: WorkflowBench) -> None:
    server.strange = {"/srv"}
    job = restore(server, "/srv/page", target="in-place")

    assert job.error is not None
    assert job.error["code"] == "conflict"
    assert "/srv" in str(job.error["detail"])


def test_an_unverified_backup_is_none(bench: WorkflowBench) -> None:
    bench.exists()
    job = restore(bench, "/srv")

    assert job.error is not None
    assert job.error["code"] == "no-backup"


def test_fewer_files_than_the_manifest_has_are_no_success(
    server: WorkflowBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_restore_files", lambda _request, _given: {"checked": 0})
    job = restore(server, "/srv")

    assert job.error is not None
    assert job.error["code"] == "evidence-missing"


def test_a_cancelled_restore_in_place_says_how_to_go_back(server: WorkflowBench) -> None:
    server.cancel_at("restore", done=True)
    job = restore(server, "/srv", target="in-place")

    assert job.status is JobStatus.CANCELLED
    [safety] = [r for r in server.catalogue.of_server(SERVER_ID) if r.paths]
    assert any(safety.snapshot_id in warning for warning in job.warnings)
    undone = {step.name for step in job.steps if step.status is StepStatus.UNDONE}
    assert {"restore", "send", "take"} <= undone


class Source:
    """Another server with a backup of its own, of which the target hears only what is sent."""

    def __init__(self, bench: WorkflowBench) -> None:
        self.bench = bench
        self.sent: list[tuple[dict[str, Any], bytes]] = []
        server = Server(
            server_id=SOURCE_ID,
            name="source",
            origin=ServerOrigin.ENROLLED,
            status=ServerStatus.ACTIVE,
            address="127.0.0.2",
            ssh_port=22,
            ssh_user="root",
            host_key="",
            operating_system="",
        )
        with writing(bench.database) as connection:
            bench.inventory.add(connection, server, bench.clock())
        self.password = bench.vault.secret(SERVER_ID, SecretPurpose.REPOSITORY_PASSWORD)
        bench.vault.keep(SOURCE_ID, SecretPurpose.REPOSITORY_PASSWORD, self.password)
        repositories = bench.repositories.repositories
        repositories[account_of(SOURCE_ID)] = repositories[account_of(SERVER_ID)]
        [record] = bench.catalogue.of_server(SERVER_ID)
        self.snapshot_id = "ab" * 32
        repositories[account_of(SOURCE_ID)].content[self.snapshot_id] = CONTENT
        bench.catalogue.add(
            replace(
                record,
                snapshot_id=self.snapshot_id,
                server_id=SOURCE_ID,
                verified_at=None,
                verification=None,
            )
        )
        bench.catalogue.mark_verified(self.snapshot_id, {}, bench.clock())
        assert bench.server_system is not None
        bench.server_system.commands["python3"] = self._receive

    def _receive(self, argv: Any, stdin: bytes) -> CommandResult:
        self.sent.append((json.loads(argv[4]), stdin))
        return CommandResult(0, "", "")


def test_another_servers_files_are_sent_and_its_secrets_are_not(
    server: WorkflowBench, requests: list[RunRequest]
) -> None:
    source = Source(server)
    server.kills = True
    job = restore(server, "/srv/page", "/etc", from_server=SOURCE_ID)

    assert job.status is JobStatus.SUCCEEDED, job.error
    assert result(job, "choose")["snapshot_id"] == source.snapshot_id
    sent = [(given["path"], content) for given, content in source.sent[:3]]
    assert sent[0] == ("", b"")
    assert sent[1][0] == "/etc"
    assert CONTENT["/etc/hostname"] in sent[1][1]
    assert sent[2] == ("/srv/page", CONTENT["/srv/page"])
    assert len(source.sent) == 6, "the successor of a killed worker sends all anew"
    [request] = requests
    assert (dict(request.secrets), dict(request.environment)) == ({}, {})
    assert json.loads(request.arguments[0])["brought"] is True


def test_a_server_that_does_not_take_them_fails_the_job(server: WorkflowBench) -> None:
    Source(server)
    assert server.server_system is not None
    refused = CommandResult(1, "", "5 MiB are free below /var/restored, 20 MiB are needed\n")
    server.server_system.commands["python3"] = lambda _argv, _stdin: refused
    job = restore(server, "/srv/page", from_server=SOURCE_ID)

    assert job.error is not None
    assert "5 MiB are free" in str(job.error["detail"])
