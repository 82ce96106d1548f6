"""No green without evidence, also from a server that lies, and none lost to a worker that died."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

import pytest

from managed.domain.connections import CommandResult
from managed.domain.errors import EvidenceMissing, Json
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.manifests import manifest_lines
from managed.domain.servers import PowerState
from managed.domain.snapshots import backup_claim
from managed.workflows import backup
from managed.workflows.parts import kept_evidence
from managed.workflows.steps import Outcome, StepContext, Wait
from tests.support.workflows import SERVER_ID, WorkflowBench, compressed, manifest_of_content

GOOD: dict[str, Json] = {"snapshot_id": "0f" * 32, "files": 5, "bytes": 14}


# ---------------------------------------------------------------- what a server claims


@pytest.mark.parametrize(
    "claimed",
    [
        {"snapshot_id": "../../srv-other/" + "0" * 48},
        {"snapshot_id": "0f" * 32 + "\n"},
        {"snapshot_id": "0F" * 32},
        {"snapshot_id": None},
        {"files": -1},
        {"files": "5"},
        {"files": True},
        {"bytes": 2**63},
        {"bytes": 1.5},
    ],
    ids=str,
)
def test_an_odd_claim_of_a_backup_is_no_evidence(claimed: dict[str, Json]) -> None:
    assert backup_claim(GOOD).snapshot_id == GOOD["snapshot_id"]
    with pytest.raises(EvidenceMissing):
        backup_claim({**GOOD, **claimed})


def test_a_snapshot_id_that_is_a_path_writes_no_object(bench: WorkflowBench) -> None:
    bench.exists()
    bench.taken = {"snapshot_id": "../srv-other/manifest"}

    job = bench.finish(JobKind.BACKUP)

    assert job.error is not None
    assert job.error["code"] == "evidence-missing"
    assert bench.objects.content == {}


@pytest.mark.parametrize("name", ["LARGEST_MANIFEST", "LARGEST_LAYOUT"])
def test_more_than_a_manifest_or_layout_can_be_is_not_read(
    bench: WorkflowBench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bench.exists()
    monkeypatch.setattr(backup, name, 10)

    job = bench.finish(JobKind.BACKUP)

    assert job.error is not None
    assert "larger than 10 bytes" in str(job.error["detail"])
    assert bench.catalogue.of_server(SERVER_ID) == []


def test_a_manifest_that_swells_when_unpacked_is_given_up() -> None:
    lines = list(manifest_lines(manifest_of_content()))
    whole = kept_evidence.manifest_entries(compressed("".join(lines)), len("".join(lines)))
    assert len(list(whole)) == 5
    with pytest.raises(EvidenceMissing, match="larger than"):
        list(kept_evidence.manifest_entries(compressed("".join(lines)), len("".join(lines)) - 1))

    bomb = gzip.compress(lines[0].encode() + b" " * (64 * 2**20))
    assert len(bomb) < 100_000
    with pytest.raises(EvidenceMissing, match="longer than"):
        list(kept_evidence.manifest_entries(bomb, 2**30))


@pytest.mark.parametrize("content", [b"", b"no gzip", compressed("no manifest\n")], ids=str)
def test_a_damaged_manifest_is_no_evidence(content: bytes) -> None:
    with pytest.raises(EvidenceMissing):
        list(kept_evidence.manifest_entries(content, 1000))


@pytest.mark.parametrize(
    "addition",
    [b', "load": NaN', b', "load": 1e999', b" " * (4 * 2**20)],
    ids=["NaN", "1e999", "large"],
)
def test_a_result_that_cannot_be_kept_is_no_evidence(bench: WorkflowBench, addition: bytes) -> None:
    bench.exists()

    def observe(context: StepContext, name: str, outcome: Outcome | None) -> None:
        if name == "take" and isinstance(outcome, Wait):
            assert bench.server_system is not None
            path = f"/var/lib/managed/runs/{context.run_id('take')}/result.json"
            written = bench.server_system.files[path]
            bench.server_system.files[path] = written[:-1] + addition + b"}"

    bench.observe = observe
    job = bench.finish(JobKind.BACKUP)

    assert job.error is not None
    assert job.error["code"] == "evidence-missing"


# ---------------------------------------------------------------- backup


def test_a_backup_is_good_though_its_record_cannot_be_taken_off_the_server(
    bench: WorkflowBench,
) -> None:
    bench.exists()

    def observe(_context: StepContext, name: str, _outcome: Outcome | None) -> None:
        if name == "verify":
            bench.hypervisor.power_off(SERVER_ID)

    bench.observe = observe
    job = bench.finish(JobKind.BACKUP)

    assert job.status is JobStatus.SUCCEEDED
    assert len(job.warnings) == 1
    assert bench.catalogue.of_server(SERVER_ID)[0].verified_at is not None


@pytest.mark.parametrize("kind", [JobKind.BACKUP, JobKind.PATCH, JobKind.RESTORE])
def test_no_record_of_a_run_stays_on_the_server(bench: WorkflowBench, kind: JobKind) -> None:
    bench.exists()
    if kind is JobKind.RESTORE:
        bench.has_backup()

    assert bench.finish(kind).status is JobStatus.SUCCEEDED
    assert bench.server_system is not None
    assert [path for path in bench.server_system.files if "/runs/" in path] == []


def test_a_part_of_the_repository_that_was_not_found_sound_stays_due(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    bench.has_backup()
    due = bench.inventory.part_to_check(SERVER_ID, 30)
    repository = next(iter(bench.repositories.repositories.values()))
    repository.errors.append("pack 1 is damaged")

    assert bench.finish(JobKind.BACKUP).status is JobStatus.FAILED
    assert bench.inventory.part_to_check(SERVER_ID, 30) == due
    repository.errors.clear()
    bench.has_backup()
    assert bench.inventory.part_to_check(SERVER_ID, 30) == due + 1


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
