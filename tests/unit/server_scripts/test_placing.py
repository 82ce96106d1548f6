"""Restored files on their way to where they belong, on real file systems of this machine."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from managed.domain.manifest_parts import PathSet
from managed.domain.manifests import EntryKind, ManifestEntry, manifest_differences, manifest_lines
from managed.server_scripts import _placing
from managed.server_scripts._files import Excludes, TreeScan, sha256_of
from managed.server_scripts._layout_survey import Mount
from managed.server_scripts._placing import Placing, require_placeable, require_room_elsewhere
from managed.server_scripts._run import ScriptFailed
from managed.server_scripts._staged_files import WantedFiles, finish_files, fresh_directory
from managed.server_scripts.restore_files import differences_in_place, present_mounts

IN_MEMORY = Path("/dev/shm")


@dataclass
class Stage:
    """`folder` was backed up; `place` holds what came back of it, and `files` its manifest."""

    folder: Path
    place: Path
    files: WantedFiles

    @property
    def arrived(self) -> Path:
        return Path(f"{self.place}{self.folder}")

    def put_in_place(self) -> None:
        Placing(self.place, self.files).run()

    def differences(self) -> list[str]:
        """How the folder differs from its manifest; "+" and the path for what is not in it."""
        found = {entry.path: entry for entry in scanned(self.folder)}
        wanted = {entry.path: entry for entry in self.files.wanted()}
        differing = [d for e in wanted.values() for d in differences_in_place(e, found.get(e.path))]
        return [*map(str, differing), *(f"+{path}" for path in found.keys() - wanted.keys())]


def scanned(folder: Path, root: bytes = b"/", *, with_above: bool = False) -> list[ManifestEntry]:
    part = PathSet([str(folder)])
    points = [mount.place for mount in present_mounts()]
    scan = TreeScan(root, points, Excludes(()), lambda path, _: sha256_of(path), part)
    entries = [found.entry for found in scan.files()]
    return [entry for entry in entries if with_above or part.covers(entry.path)]


def fill(folder: Path) -> None:
    (folder / "deep/er").mkdir(parents=True)
    (folder / "page").write_text("as it was")
    os.setxattr(folder / "page", "user.note", b"\x00\xff")
    (folder / "deep/first").write_text("one file")
    (folder / "deep/er/second").hardlink_to(folder / "deep/first")
    (folder / "link").symlink_to("page")
    os.mkfifo(folder / "pipe")
    (folder / "page").chmod(0o4640)
    (folder / "deep").chmod(0o2750)
    for path in (folder / "deep", folder / "page"):
        os.utime(path, ns=(1, 1_234_567_890_123_456_789))


def write_manifest(file: Path, folder: Path) -> None:
    lines = manifest_lines(scanned(folder, with_above=True))
    file.write_bytes(gzip.compress("".join(lines).encode()))


@pytest.fixture(params=["the same filesystem", "another filesystem"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    folder = tmp_path / "srv" / "site"
    fill(folder)
    manifest = tmp_path / "manifest.jsonl.gz"
    write_manifest(manifest, folder)
    elsewhere = IN_MEMORY if request.param == "another filesystem" else tmp_path
    with tempfile.TemporaryDirectory(dir=elsewhere) as base:
        stage = Stage(folder, Path(base) / "place", WantedFiles(str(manifest), [str(folder)]))
        stage.arrived.parent.mkdir(parents=True)
        subprocess.run(("cp", "-a", str(folder), str(stage.arrived)), check=True)
        yield stage


def test_what_was_changed_removed_or_replaced_is_as_it_was(stage: Stage) -> None:
    (stage.folder / "page").write_text("spoiled")
    (stage.folder / "link").unlink()
    (stage.folder / "link").symlink_to("/etc/passwd")
    shutil.rmtree(stage.folder / "deep")
    (stage.folder / "deep").write_text("no directory")
    (stage.folder / "new").write_text("kept")
    stage.put_in_place()

    assert stage.differences() == [f"+{stage.folder}/new"]
    assert (stage.folder / "new").read_text() == "kept"


def test_what_is_wholly_gone_comes_back_with_the_folders_above_it(stage: Stage) -> None:
    stage.folder.parent.chmod(0o751)
    write_manifest(stage.files.file, stage.folder)
    shutil.rmtree(stage.folder.parent)
    stage.put_in_place()

    assert stage.differences() == []
    assert stage.folder.parent.stat().st_mode & 0o7777 == 0o751


def test_who_has_a_file_open_keeps_the_old_one(stage: Stage) -> None:
    (stage.folder / "page").write_text("old")
    with (stage.folder / "page").open() as reader:
        stage.put_in_place()
        assert reader.read() == "old"
    assert (stage.folder / "page").read_text() == "as it was"


def test_a_directory_that_becomes_a_symlink_meanwhile_leads_nowhere(
    stage: Stage, tmp_path: Path
) -> None:
    """Whoever owns the folder above swaps it after all was looked at."""
    require_placeable(stage.files, present_mounts())
    elsewhere = tmp_path / "elsewhere"
    stage.folder.parent.rename(elsewhere)
    stage.folder.parent.symlink_to(elsewhere)
    (elsewhere / "site/page").write_text("not to be touched")

    with pytest.raises(ScriptFailed, match="could not be put in its place"):
        stage.put_in_place()
    assert (elsewhere / "site/page").read_text() == "not to be touched"
    with pytest.raises(ScriptFailed, match="is a symlink now"):
        require_placeable(stage.files, present_mounts())


def test_no_file_takes_the_place_of_a_directory(stage: Stage) -> None:
    (stage.folder / "page").unlink()
    (stage.folder / "page").mkdir()

    with pytest.raises(ScriptFailed, match="is a directory now and was a file"):
        require_placeable(stage.files, present_mounts())


def test_what_no_backup_covers_is_not_overwritten(stage: Stage) -> None:
    shared = Mount(f"{stage.folder}/deep", "0:77", "/", "nfs4", "rw")

    with pytest.raises(ScriptFailed, match="backups do not cover"):
        require_placeable(stage.files, [*present_mounts(), shared])


def test_room_is_asked_for_where_the_files_go(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, int]] = []
    monkeypatch.setattr(_placing, "require_room", lambda *given: asked.append(given))
    require_room_elsewhere(stage.arrived, stage.files)

    same = stage.place.parent.stat().st_dev == stage.folder.stat().st_dev
    entries = list(stage.files.wanted())
    size = len("as it was") + len("one file")
    assert asked == ([] if same else [(str(stage.folder.parent), size, len(entries))])


def test_content_alone_becomes_the_files_of_the_manifest(stage: Stage) -> None:
    shutil.rmtree(stage.arrived)
    wanted = list(stage.files.wanted())
    for entry in wanted:
        if entry.kind is EntryKind.FILE:
            path = Path(f"{stage.place}{entry.path}")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(entry.path, path)
    finish_files(stage.place, stage.files)
    finish_files(stage.place, stage.files)

    found = scanned(stage.folder, bytes(stage.place))
    assert list(manifest_differences(wanted, found)) == []


def test_a_folder_is_made_anew_where_root_alone_may_write(tmp_path: Path) -> None:
    place = tmp_path / "restored" / "job"
    fresh_directory(place)
    (place / "half").touch()
    fresh_directory(place)
    assert list(place.iterdir()) == []
    assert [path.stat().st_mode & 0o777 for path in (place, place.parent)] == [0o700] * 2

    place.parent.chmod(0o777)
    with pytest.raises(ScriptFailed, match="root alone"):
        fresh_directory(place)
    place.parent.rename(tmp_path / "other")
    place.parent.symlink_to(tmp_path / "other")
    with pytest.raises(ScriptFailed, match="root alone"):
        fresh_directory(place)


def test_a_damaged_manifest_is_said_to_be_one(stage: Stage) -> None:
    stage.files.file.write_bytes(stage.files.file.read_bytes()[:-20])

    with pytest.raises(ScriptFailed, match="the manifest can't be used") as failure:
        list(stage.files.wanted())
    assert failure.value.code == "evidence-missing"


def test_the_time_of_a_directory_says_nothing_in_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for entry in scanned(tmp_path):
        moved = replace(entry, mtime_ns=1)
        found = [d.field for d in differences_in_place(moved, entry)]
        assert found == ([] if entry.kind is EntryKind.DIRECTORY else ["mtime_ns"])


def test_nothing_of_ours_stays_in_a_folder_where_a_copy_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_argv: object) -> str:
        raise ScriptFailed("the disk is full")

    monkeypatch.setattr(_placing, "run_program", full)
    same = stage.place.parent.stat().st_dev == stage.folder.stat().st_dev
    names = {path.name for path in stage.folder.rglob("*")}
    if same:
        stage.put_in_place()
    else:
        with pytest.raises(ScriptFailed, match="the disk is full"):
            stage.put_in_place()
    assert {path.name for path in stage.folder.rglob("*")} == names
