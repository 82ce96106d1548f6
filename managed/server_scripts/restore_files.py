#!/usr/bin/env python3
"""Restore files and folders of a running server: into a folder of their own, or in place.

Input (one JSON argument): paths, manifest (file with the part of the backup's manifest that is
wanted; it is removed at the end), place (folder of this restore's own in which the files arrive),
in_place, size (bytes), entries (number), and either repository, restic (program, may be empty) and
snapshot, or brought: then the content of the files is in `place` already. Secrets come as
RESTIC_PASSWORD, RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in the environment.

Every file is compared with the manifest where it arrives; only when all is right, files go on to
their places. Started again after an interruption it brings all files anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from managed.domain.manifests import (
    Difference,
    EntryKind,
    ManifestEntry,
    entry_differences,
    manifest_differences,
    merged_by_path,
)
from managed.server_scripts._files import Excludes, TreeScan, bytes_of, sha256_of
from managed.server_scripts._layout_survey import Mount, parsed_mounts
from managed.server_scripts._placing import Placing, require_placeable, require_room_elsewhere
from managed.server_scripts._restic import Restic
from managed.server_scripts._run import (
    Progress,
    ScriptFailed,
    Stopwatch,
    emit,
    run_directory,
    run_script,
    say,
    write_atomically,
)
from managed.server_scripts._snapshot_files import line_pattern
from managed.server_scripts._staged_files import (
    WantedFiles,
    finish_files,
    fresh_directory,
    require_room,
)

CACHE = "/var/cache/managed/restic"
SHOWN = 50
MOST_DIFFERENCES = 10_000


class FileRestore:
    """One restore from beginning to end, in the order of its methods."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.watch = Stopwatch()
        self.place = Path(wanted["place"])
        self.files = WantedFiles(wanted["manifest"], wanted["paths"])
        self.in_place = bool(wanted["in_place"])
        self.kept = 0
        self.kept_paths: list[str] = []

    def require_possible(self) -> None:
        """Nothing is touched before this is sure."""
        entries = sum(1 for _ in self.files.wanted())
        if entries != self.wanted["entries"]:
            raise ScriptFailed("the manifest is not the one that was meant", "evidence-missing")
        if self.in_place:
            require_placeable(self.files, present_mounts())

    def bring(self) -> None:
        """All files to `place`, by restic, or by what was sent there."""
        if self.wanted.get("brought"):
            finish_files(self.place, self.files)
        else:
            fresh_directory(self.place)
            require_room(str(self.place), self.wanted["size"], self.wanted["entries"])
        if self.in_place:
            require_room_elsewhere(self.place, self.files)
        if not self.wanted.get("brought"):
            self._bring_by_restic()

    def _bring_by_restic(self) -> None:
        patterns = run_directory() / "patterns"
        lines = (bytes_of(line_pattern(path)) + b"\n" for path in self.files.part.paths)
        patterns.write_bytes(b"".join(lines))
        restic = Restic(self.wanted.get("restic", ""), self.wanted["repository"], CACHE)
        words = ["restore", self.wanted["snapshot"], "--target", str(self.place)]
        restic.follow([*words, "--include-file", str(patterns)], "restore_progress")
        if restic.errors:
            raise ScriptFailed(f"restic could not restore everything: {restic.errors[0]}")

    def check_arrived(self) -> None:
        scan = TreeScan(
            bytes(self.place), ["/"], Excludes(()), lambda path, _: sha256_of(path), self.files.part
        )
        differences = manifest_differences(self.files.wanted(), self._covered(scan))
        demand_equal(list(islice(differences, MOST_DIFFERENCES)))

    def put_in_place(self) -> None:
        Placing(self.place, self.files).run()

    def check_in_place(self) -> None:
        """Every file once more where it belongs. What else is in a restored folder is kept."""
        points = [mount.place for mount in present_mounts()]
        scan = TreeScan(b"/", points, Excludes(()), lambda _path, _status: "", self.files.part)
        differences: list[Difference] = []
        for wanted, seen in merged_by_path(
            self.files.wanted(), self._covered(scan), lambda entry: entry.path
        ):
            if wanted is None and seen is not None:
                self.kept += 1
                self.kept_paths += [seen.path] if self.kept <= SHOWN else []
            elif wanted is not None and len(differences) < MOST_DIFFERENCES:
                differences += differences_in_place(wanted, seen)
        for path in self.kept_paths:
            say(f"kept: {path!r} is not in the snapshot")
        demand_equal(
            differences,
            "Something on the server has changed them since, or its filesystem cannot hold them."
            " The safety snapshot, named in this job's step verify, has what was there before.",
        )

    def _covered(self, scan: TreeScan) -> Iterator[ManifestEntry]:
        progress = Progress("check_progress")
        for count, scanned in enumerate(scan.files(), start=1):
            progress.show(files=count)
            if self.files.part.covers(scanned.entry.path):
                yield scanned.entry

    def clean(self, succeeded: bool) -> None:
        self.files.file.unlink(missing_ok=True)
        if self.in_place or not succeeded:
            shutil.rmtree(self.place, ignore_errors=True)

    def result(self) -> dict[str, Any]:
        here = "" if self.in_place else str(self.place)
        return {
            "checked": self.wanted["entries"],
            "differences": 0,
            "bytes": self.wanted["size"],
            "in_place": self.in_place,
            "restored": [f"{here}{path}" for path in self.files.part.paths],
            "kept": self.kept,
            "kept_paths": self.kept_paths,
            "seconds": self.watch.seconds,
        }


def present_mounts() -> list[Mount]:
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return parsed_mounts(text)


def differences_in_place(wanted: ManifestEntry, seen: ManifestEntry | None) -> list[Difference]:
    """How a file, which is read now, differs. The time of a directory says nothing where others
    keep files in it.
    """
    if seen is None:
        return [Difference(wanted.path, "path", "present", "absent")]
    if seen.kind is EntryKind.FILE:
        seen = replace(seen, sha256=sha256_of(bytes_of(seen.path)))
    elif seen.kind is EntryKind.DIRECTORY:
        seen = replace(seen, mtime_ns=wanted.mtime_ns)
    return list(entry_differences(wanted, seen))


def demand_equal(differences: list[Difference], hint: str = "") -> None:
    if not differences:
        return
    for difference in differences[:SHOWN]:
        say(f"differs: {difference}")
    text = "".join(f"{difference}\n" for difference in differences)
    write_atomically(run_directory() / "differences.txt", text.encode("utf-8", "backslashreplace"))
    raise ScriptFailed(
        f"{len(differences)} properties of restored files are not as in the manifest, "
        f"first {differences[0]}",
        "evidence-missing",
        hint,
    )


def restore_files(wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    restore = FileRestore(wanted)
    succeeded = False
    try:
        restore.require_possible()
        emit("restore_step", name="files")
        restore.bring()
        restore.watch.lap("files")
        emit("restore_step", name="check")
        restore.check_arrived()
        restore.watch.lap("check")
        if restore.in_place:
            emit("restore_step", name="place")
            restore.put_in_place()
            restore.watch.lap("place")
            emit("restore_step", name="check_again")
            restore.check_in_place()
            restore.watch.lap("check_again")
        succeeded = True
    finally:
        restore.clean(succeeded)
    return 0, restore.result()


if __name__ == "__main__":
    run_script(restore_files)
