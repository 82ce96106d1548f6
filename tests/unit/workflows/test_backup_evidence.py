"""No good backup without evidence, also from a server that lies."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest

from managed.domain.errors import EvidenceMissing, Json
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.manifests import manifest_lines
from managed.domain.snapshots import account_of, backup_claim
from managed.workflows import backup
from managed.workflows.parts import kept_evidence
from managed.workflows.steps import Outcome, StepContext, Wait
from tests.support.workflows import (
    CONTENT,
    SERVER_ID,
    WorkflowBench,
    compressed,
    manifest_of_content,
)

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
    bench.claimed = {"snapshot_id": "../srv-other/manifest"}

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


def test_a_server_that_names_an_older_backup_has_none_and_harms_none(
    bench: WorkflowBench,
) -> None:
    bench.exists()
    older = bench.catalogue.get(bench.has_backup())
    kept = dict(bench.objects.content)
    bench.claimed = {"snapshot_id": older.snapshot_id}

    def observe(_context: StepContext, name: str, outcome: Outcome | None) -> None:
        if name == "take" and not isinstance(outcome, Wait):
            spoil(bench)

    bench.observe = observe
    bench.clock.pass_time(days=1)
    job = bench.finish(JobKind.BACKUP)

    assert job.error is not None
    assert job.error["code"] == "evidence-missing"
    assert bench.objects.content == kept
    assert bench.catalogue.of_server(SERVER_ID) == [older]
    assert bench.finish(JobKind.RESTORE).status is JobStatus.SUCCEEDED


def spoil(bench: WorkflowBench) -> None:
    """Root puts another layout where the run has left one."""
    assert bench.server_system is not None
    files = bench.server_system.files
    files.update(dict.fromkeys([path for path in files if "layout.json" in path], b"{}"))


@pytest.mark.parametrize("others", [0, 300])
def test_a_snapshot_that_was_there_before_the_backup_is_none(
    bench: WorkflowBench, others: int
) -> None:
    """Root has prepared it, among however many, and gives it the job's tag when that is known."""
    bench.exists()
    bench.has_backup()
    account = account_of(SERVER_ID)
    stored = bench.repositories.repositories[account].snapshots
    for _ in range(others):
        bench.repositories.add_snapshot(account, bench.clock(), CONTENT)
    prepared = bench.repositories.add_snapshot(account, bench.clock(), CONTENT)
    bench.claimed = {"snapshot_id": prepared}

    def observe(context: StepContext, name: str, _outcome: Outcome | None) -> None:
        if name == "take":
            stored[prepared] = replace(stored[prepared], tags=(f"job:{context.job.job_id}",))

    bench.observe = observe
    job = bench.finish(JobKind.BACKUP)

    assert job.error is not None
    assert "was there before" in str(job.error["detail"])
    assert len(bench.catalogue.of_server(SERVER_ID)) == 1


def test_a_second_backup_is_another_snapshot(bench: WorkflowBench) -> None:
    bench.exists()
    ids = {bench.has_backup() for _ in range(2)}
    records = bench.catalogue.of_server(SERVER_ID)
    assert {record.snapshot_id for record in records} == ids
    assert len(ids) == 2
    assert all(record.verified_at for record in records)


def test_a_manifest_with_another_number_of_files_is_no_evidence(bench: WorkflowBench) -> None:
    bench.exists()
    bench.claimed = {"files": 4}

    job = bench.finish(JobKind.BACKUP)

    assert job.error is not None
    assert "5 of the 4 files" in str(job.error["detail"])
    assert bench.objects.content == {}


def test_nothing_is_read_of_a_snapshot_that_lists_something_else(
    bench: WorkflowBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.exists()

    def observe(_context: StepContext, name: str, _outcome: Outcome | None) -> None:
        if name == "keep_manifest":
            [content] = bench.repositories.repositories[account_of(SERVER_ID)].content.values()
            assert isinstance(content, dict)
            content["/srv/page"] = b"another page\n"

    def refuse(*_arguments: object) -> str:
        raise AssertionError("it was read")

    bench.observe = observe
    monkeypatch.setattr(bench.repositories, "file_digest", refuse)
    job = bench.finish(JobKind.BACKUP)

    assert job.error is not None
    assert "'/srv/page': the size differs" in str(job.error["detail"])


def test_a_file_with_other_content_is_no_good_backup(bench: WorkflowBench) -> None:
    bench.exists()

    def observe(_context: StepContext, name: str, _outcome: Outcome | None) -> None:
        if name == "keep_manifest":
            [content] = bench.repositories.repositories[account_of(SERVER_ID)].content.values()
            assert isinstance(content, dict)
            content["/srv/page"] = b"b page\n"

    bench.observe = observe
    job = bench.finish(JobKind.BACKUP)

    assert job.error is not None
    assert "the content of '/srv/page'" in str(job.error["detail"])


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
