"""Which snapshot is whose, which is restored, and what proves that it holds its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from typing import Any

import pytest

from managed.domain import verification
from managed.domain.errors import EvidenceMissing
from managed.domain.manifests import EntryKind, ManifestEntry, listed_path, tree_order
from managed.domain.snapshots import (
    KeptObject,
    Snapshot,
    SnapshotFile,
    SnapshotRecord,
    claim_refusal,
    kept_layout,
    kept_manifest,
    snapshot_to_restore,
    snapshots_before,
)
from managed.domain.verification import content_differences, files_to_read, snapshot_differences

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def snapshot(name: str, hours: int, *, verified: bool = True) -> SnapshotRecord:
    time = NOON + timedelta(hours=hours)
    kept = KeptObject("k", "0" * 64)
    return SnapshotRecord(name, "s", "j", time, 1, 1, kept, kept, time if verified else None)


def test_the_newest_verified_snapshot_is_restored() -> None:
    records = [snapshot("old", -2), snapshot("new", -1), snapshot("unproven", 0, verified=False)]
    chosen = snapshot_to_restore(records, None)
    assert chosen is not None
    assert chosen.snapshot_id == "new"
    as_of = snapshot_to_restore(records, NOON - timedelta(hours=2))
    assert as_of is not None
    assert as_of.snapshot_id == "old"
    assert snapshot_to_restore(records[2:], None) is None


IN_BUCKET = Snapshot("new", NOON, "one", ("/",), ("job:j",), 1, 1)


def refusal(job_id: str = "j", before: tuple[str, ...] = (), **change: Any) -> str | None:
    found = [replace(IN_BUCKET, **change)]
    return claim_refusal("new", job_id, found, before, [snapshot("old", -1), snapshot("new", 0)])


def test_a_new_snapshot_with_the_jobs_tag_is_the_jobs_and_may_be_on_record_as_such() -> None:
    assert refusal() is None
    assert refusal(before=("old",)) is None
    assert claim_refusal("new", "j", [IN_BUCKET], (), []) is None


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ({"snapshot_id": "another"}, "not in the repository"),
        ({"job_id": "later", "tags": ("job:later",)}, "was made by job j"),
        ({"before": ("new",)}, "before this job's backup began"),
        ({"tags": ()}, "tag"),
        ({"tags": ("job:other",)}, "tag"),
    ],
    ids=str,
)
def test_another_snapshot_is_not_the_jobs(claim: dict[str, Any], reason: str) -> None:
    assert reason in str(refusal(**claim))


def test_snapshots_that_no_job_has_on_record_are_remembered() -> None:
    found = [replace(IN_BUCKET, snapshot_id=name) for name in ("c", "old", "b")]
    assert snapshots_before(found, [snapshot("old", -1)]) == ("b", "c")


def test_no_manifest_or_layout_has_the_place_of_another() -> None:
    for kept in (kept_manifest, kept_layout):
        one, other = kept("srv", "id", b"one"), kept("srv", "id", b"other")
        assert one == kept("srv", "id", b"one")
        assert one.key != other.key
        assert one.sha256 == hashlib.sha256(b"one").hexdigest()


ENTRY = ManifestEntry("/etc/fstab", EntryKind.FILE, 0o644, 0, 0, 1, size=5, sha256="ab" * 32)
FILE = SnapshotFile("/etc/fstab", "file", 0o644, 0, 0, 5, "")


def test_a_snapshot_that_holds_the_manifest_is_in_order() -> None:
    socket = SnapshotFile("/run/x", "socket", 0o777, 0, 0, 0, "")
    root = ManifestEntry("/", EntryKind.DIRECTORY, 0o755, 0, 0, 1)
    assert list(snapshot_differences([root, ENTRY], [FILE, socket])) == []


@pytest.mark.parametrize(
    "files",
    [
        [],
        [FILE, SnapshotFile("/etc/more", "file", 0o644, 0, 0, 5, "")],
        [SnapshotFile("/etc/fstab", "file", 0o644, 0, 0, 6, "")],
        [SnapshotFile("/etc/fstab", "file", 0o600, 0, 0, 5, "")],
        [SnapshotFile("/etc/fstab", "file", 0o644, 1000, 0, 5, "")],
        [SnapshotFile("/etc/fstab", "symlink", 0o644, 0, 0, 5, "")],
    ],
)
def test_every_difference_from_the_manifest_is_found(files: list[SnapshotFile]) -> None:
    assert len(list(snapshot_differences([ENTRY], files))) == 1


def latin(last: str, *, size: int) -> ManifestEntry:
    return ManifestEntry(f"/srv/latin-{last}", EntryKind.FILE, 0o644, 0, 0, 1, size=size)


def listed(size: int) -> SnapshotFile:
    return SnapshotFile("/srv/latin-\ufffd", "file", 0o644, 0, 0, size, "")


def test_names_that_are_listed_as_one_are_matched_by_what_they_look_like() -> None:
    manifest = [latin("\udce8", size=1), latin("\udce9", size=2), latin("\ufffd", size=3)]

    def problems(*sizes: int) -> list[str]:
        return list(snapshot_differences(manifest, map(listed, sizes)))

    assert problems(3, 1, 2) == []
    assert len(problems(3, 1, 1)) == 1
    assert "size differs" in problems(3, 1, 1)[0]
    assert len(problems(3, 1)) == 1
    assert len(problems(1, 2, 3, 3)) == 1


def test_names_that_are_not_utf8_do_not_disturb_their_neighbours() -> None:
    """By its bytes the first comes first; as listed, U+FFFD is behind the others."""
    names = ["/a-\udce8", "/a-\udce8/below", "/a-\uac00", "/b"]
    manifest = [replace(ENTRY, path=name) for name in names]
    assert [entry.path for entry in sorted(manifest, key=lambda e: tree_order(e.path))] == names
    files = [replace(FILE, path=listed_path(name)) for name in names]

    assert list(snapshot_differences(manifest, files)) == []
    for missing in range(len(names)):
        rest = files[:missing] + files[missing + 1 :]
        assert list(snapshot_differences(manifest, rest)) == [
            f"{listed_path(names[missing])!r} is not in the snapshot"
        ]
        others = manifest[:missing] + manifest[missing + 1 :]
        assert len(list(snapshot_differences(others, files))) == 1


def test_a_comparison_holds_nothing_but_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MOST_UNMATCHED", 10)
    sizes = range(1000)
    manifest = [latin("\udce8", size=size) for size in sizes]

    assert list(snapshot_differences(manifest, map(listed, sizes))) == []
    with pytest.raises(EvidenceMissing, match="not UTF-8"):
        list(snapshot_differences(manifest, map(listed, reversed(sizes))))


def test_a_listing_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = (replace(FILE, path=f"/{n:09}") for n in count())
    assert len(list(islice(snapshot_differences([], endless), 20))) == 20

    monkeypatch.setattr(verification, "MOST_FILES", 1000)
    sockets = (SnapshotFile(f"/{n}", "socket", 0o777, 0, 0, 0, "") for n in count())
    with pytest.raises(EvidenceMissing, match="more than 1000"):
        list(snapshot_differences([], sockets))


def test_contents_are_compared_by_digest() -> None:
    assert content_differences([ENTRY], {"/etc/fstab": "ab" * 32}) == []
    assert content_differences([ENTRY], {"/etc/fstab": "cd" * 32})
    assert content_differences([ENTRY], {})


def test_the_sample_holds_what_restores_need_and_varies_with_the_snapshot() -> None:
    others = [
        ManifestEntry(f"/srv/{n}", EntryKind.FILE, 0o644, 0, 0, 1, size=1) for n in range(100)
    ]
    chosen = [{e.path for e in files_to_read([ENTRY, *others], seed, 8)} for seed in "ab"]
    assert all(len(paths) == 8 and "/etc/fstab" in paths for paths in chosen)
    assert chosen[0] != chosen[1]
