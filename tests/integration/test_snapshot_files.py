"""What is read back from a snapshot is what a restore of it brings, hard links included."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from managed.domain.manifests import EntryKind, EntrySource, ManifestEntry, tree_order
from managed.domain.secrets import Secret
from managed.drivers.restic.crypto import opened_key_file
from managed.server_scripts import _snapshot_files
from managed.server_scripts._backup_manifest import Node, Seen, parsed_node, seen_paths
from managed.server_scripts._files import Excludes, TreeScan, sha256_of
from managed.server_scripts._restic import Restic
from managed.server_scripts._snapshot_files import SnapshotFiles
from tests.support.restic_objects import key_file
from tests.support.storage import restic_binary

pytestmark = pytest.mark.integration


ODD_NAMES = (b"latin-\xe8", b"latin-\xe9", b"star*[q]?\\", b"new\nline", b"$HOME", b"end \t")


class Usage(NamedTuple):
    free: int


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of `folder`, all of whose files count as changed, and a restore of all of it."""

    folder: Path
    moved: list[Seen]
    restored: dict[str, ManifestEntry]
    files: SnapshotFiles

    def read_back(self) -> dict[str, ManifestEntry]:
        entries = self.files.entries(self.moved)
        assert [entry.path for entry in entries] == [seen.path for seen in self.moved]
        assert {entry.source for entry in entries} == {EntrySource.SNAPSHOT}
        return {entry.path: replace(entry, source=EntrySource.SERVER) for entry in entries}


def make_files(folder: Path) -> None:
    """Names of one file lie far apart, as after `cp -al`, in rsnapshot's folders or a Maildir."""
    for place in ("a/deep/er", "b", "z/last"):
        (folder / place).mkdir(parents=True)
    for number in range(8):
        file = folder / "a/deep/er" / f"mail-{number:02}"
        file.write_bytes(b"x" * (100 + number))
        (folder / "z/last" / file.name).hardlink_to(file)
    (folder / "b/third").hardlink_to(folder / "a/deep/er/mail-07")
    (folder / "b/alone").write_text("alone")
    (folder / "b/linked outside").hardlink_to(folder / "b/alone")
    os.setxattr(folder / "a/deep/er/mail-03", "user.note", b"\x00\xff")
    (folder / "b/symlink").symlink_to("alone")
    os.link(folder / "b/symlink", folder / "z/symlink", follow_symlinks=False)
    os.mkfifo(folder / "b/pipe")
    for number, name in enumerate(ODD_NAMES):
        path = os.path.join(bytes(folder), b"b", name)
        Path(os.fsdecode(path)).write_bytes(b"odd" * (number + 1))
        os.link(path, os.path.join(bytes(folder), b"z", name))


@pytest.fixture(scope="module")
def restic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restic]:
    place, password = tmp_path_factory.mktemp("restic"), Secret("a test")
    restic = Restic(str(restic_binary()), str(place / "repository"), str(place / "cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESTIC_PASSWORD", password.reveal())
        subprocess.run(restic.command("init"), check=True, capture_output=True)
        replace_by_a_cheap_key(place / "repository/keys", password)
        yield restic


@pytest.fixture(scope="module")
def snapshot(restic: Restic, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    tmp_path = tmp_path_factory.mktemp("snapshot")
    folder = tmp_path / "srv"
    make_files(folder)
    _, summary = restic.follow(["backup", str(folder)], "backup_progress")
    snapshot_id = summary["snapshot_id"]
    restic.follow(["restore", snapshot_id, "--target", str(tmp_path / "all")], "restore_progress")

    scan = TreeScan(b"/", ["/"], Excludes(()), lambda _path, _status: "")
    second = [
        scanned._replace(entry=replace(scanned.entry, path=f"{folder}{scanned.entry.path}"))
        for scanned in TreeScan(bytes(folder), ["/"], Excludes(()), scan.hash_of).files()
        if scanned.entry.path != "/"
    ]
    nodes = [node for node in listed(restic, snapshot_id) if node.path.startswith(f"{folder}/")]
    moved = sorted(seen_paths([], second, nodes), key=lambda seen: tree_order(seen.path))
    return Snapshot(
        folder,
        moved,
        {e.path: e for e in restored(tmp_path / "all") if e.path.startswith(f"{folder}/")},
        SnapshotFiles(restic, snapshot_id, tmp_path / "read_back"),
    )


def replace_by_a_cheap_key(keys: Path, password: Secret) -> None:
    """restic's own spends half a second of every command."""
    [made] = keys.iterdir()
    key = key_file(opened_key_file(made.read_bytes(), password), password.reveal())
    made.unlink()
    (keys / sha256(key).hexdigest()).write_bytes(key)


def listed(restic: Restic, snapshot_id: str) -> Iterator[Node]:
    for line in restic.lines("ls", "--json", snapshot_id):
        node = parsed_node(json.loads(line))
        if node is not None:
            yield node


def restored(place: Path) -> Iterator[ManifestEntry]:
    scan = TreeScan(bytes(place), ["/"], Excludes(()), lambda path, _: sha256_of(path))
    yield from (scanned.entry for scanned in scan.files())


def test_names_of_one_file_are_found_however_far_apart_they_are(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_snapshot_files, "ARGUMENTS_SIZE", 300)
    found = snapshot.read_back()

    links = [entry for entry in found.values() if entry.hard_link]
    assert len(links) == 8 + len({"b/third", "b/linked outside"}) + len(ODD_NAMES)
    assert found == snapshot.restored


@pytest.mark.parametrize("free", [0, 2 * 1000], ids=["none fits", "some fit"])
def test_what_is_streamed_is_linked_as_a_restore_links_it(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    monkeypatch.setattr(_snapshot_files, "ARGUMENTS_SIZE", 300)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage(free))

    assert snapshot.read_back() == snapshot.restored


def test_names_that_are_no_longer_there_are_read_back_too(snapshot: Snapshot) -> None:
    gone = replace(snapshot, moved=[seen._replace(second=None) for seen in snapshot.moved])
    elsewhere = snapshot.folder.rename(snapshot.folder.with_name("elsewhere"))
    try:
        found = gone.read_back()
    finally:
        elsewhere.rename(snapshot.folder)

    files = {path: e for path, e in found.items() if e.kind is not EntryKind.DIRECTORY}
    assert files == {path: e for path, e in gone.restored.items() if path in files}
