#!/usr/bin/env python3
"""Back up a server: dump its databases, store its files with restic, write down what they are.

Input (one JSON argument): repository, restic (program, may be empty), hostname, tags, excludes
(absolute patterns with * and ?, beside the usual ones), paths (existing ones, to store these alone
and without dumps; empty: the whole server). Secrets come as RESTIC_PASSWORD, RESTIC_REST_USERNAME
and RESTIC_REST_PASSWORD in the environment.

Beside result.json the run's directory gets manifest.jsonl.gz and layout.json. Exit status 0: the
snapshot is complete. 3: there is a snapshot, but something is missing from it (`incomplete` in
the result says what, and `error` what comes first): not a good backup. Anything else: no backup.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from managed.domain.manifest_parts import PathSet
from managed.domain.manifests import (
    ManifestEntry,
    entry_line,
    is_ambiguous,
    manifest_lines,
    merged_by_path,
    parsed_entry,
    tree_order,
)
from managed.server_scripts._backup_manifest import (
    Node,
    Recorded,
    Seen,
    incompleteness,
    parsed_node,
    recorded_line,
    seen_paths,
    verdict,
)
from managed.server_scripts._databases import dump_databases
from managed.server_scripts._files import (
    Excludes,
    HashOf,
    ScannedFile,
    TreeScan,
    sha256_of,
    signature,
)
from managed.server_scripts._layout_survey import (
    Survey,
    covered_mounts,
    parsed_mounts,
    swap_paths,
    system_facts,
)
from managed.server_scripts._restic import INCOMPLETE, Restic
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
from managed.server_scripts._snapshot_files import SnapshotFiles

CACHE = "/var/cache/managed/restic"
USUAL_EXCLUDES = (
    "/dev/*",
    "/proc/*",
    "/run/*",
    "/sys/*",
    "/tmp/*",  # noqa: S108 (nothing is kept there)
    "/var/cache/apt/archives/*.deb",
    "/var/cache/apt/archives/partial/*",
    "/var/cache/managed/*",
    "/var/lib/managed/restores/*",
    "/var/lib/managed/runs/*",
    "/root/.cache/restic/*",
)
SHOWN_PATHS = 50


class Backup:
    """One backup from beginning to end, in the order of its methods."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.directory = run_directory()
        self.watch = Stopwatch()
        self.warnings: list[str] = []
        self.incomplete: list[str] = []
        self.late: list[ManifestEntry] = []
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        self.mounts = covered_mounts(parsed_mounts(mountinfo))
        self.mount_points = [mount.place for mount in self.mounts]
        self.part = PathSet(wanted["paths"]) if wanted.get("paths") else None
        self.roots = part_roots(self.part, self.mount_points)
        swaps = Path("/proc/swaps").read_text(encoding="utf-8", errors="surrogateescape")
        self.swap_files = swap_paths(swaps)
        patterns = (*USUAL_EXCLUDES, *self.swap_files, *wanted.get("excludes", ()))
        try:
            self.excludes = Excludes(patterns)
        except ValueError as error:
            raise ScriptFailed(str(error), "invalid-input") from error
        self.restic = Restic(wanted.get("restic", ""), wanted["repository"], CACHE)

    def dump(self) -> list[Any]:
        """The dumps that a backup of the whole server holds of its databases."""
        if self.part is not None:
            return []
        emit("backup_step", name="databases")
        dumped, notes = dump_databases()
        self.warnings += notes
        self.watch.lap("databases")
        return dumped

    def record_layout(self) -> None:
        layout = Survey(self.mounts, self.swap_files).layout()
        self.warnings += [f"can't be restored bare-metal yet: {x}" for x in layout["unsupported"]]
        document = {"layout": layout, "system": system_facts()}
        text = json.dumps(document, indent=1) + "\n"
        write_atomically(self.directory / "layout.json", text.encode())

    def read_files(self) -> None:
        """Pass 1: everything, with sha256."""
        progress, count = Progress("manifest_progress"), 0
        with self._first_pass().open("w", encoding="ascii") as file:
            scan = self._scan(lambda path, _: sha256_of(path))
            for count, scanned in enumerate(scan.files(), start=1):
                inode = json.dumps(signature(scanned.status))
                file.write(f"{inode}\t{entry_line(scanned.entry)}")
                progress.show(files=count)
        say(f"read {count} files")

    def _first_pass(self) -> Path:
        return self.directory / "first_pass"

    def store(self) -> dict[str, Any]:
        """restic itself; its summary comes back."""
        words = ["backup", "--one-file-system", "--host", self.wanted["hostname"]]
        words += [f"--tag={tag}" for tag in self.wanted.get("tags", ())]
        words += [f"--exclude={pattern}" for pattern in self.excludes.patterns]
        status, summary = self.restic.follow([*words, "--", *self.roots], "backup_progress")
        if "snapshot_id" not in summary:
            raise ScriptFailed("restic ended without naming a snapshot", "evidence-missing")
        if status == INCOMPLETE or self.restic.errors:
            self.incomplete += self.restic.errors or ["restic could not read some files"]
        return summary

    def compare(self, snapshot: str) -> list[Seen]:
        """Pass 2: entries that hold go to a file of their own, paths to be read back are given."""
        moved = []
        with self._settled().open("w", encoding="ascii") as file:
            for seen in seen_paths(self._recorded(), self._looked_at(), self._nodes(snapshot)):
                answer = verdict(seen)
                if answer == "snapshot":
                    moved.append(seen)
                elif answer == "missing":
                    self.incomplete.append(f"{seen.path!r} is not in the snapshot")
                elif answer == "server" and is_ambiguous(seen.path):
                    self.late.append(_server_entry(seen))
                elif answer == "server":
                    file.write(entry_line(_server_entry(seen)))
        return sorted(moved, key=lambda seen: tree_order(seen.path))

    def _settled(self) -> Path:
        return self.directory / "settled"

    def _recorded(self) -> Iterator[Recorded]:
        with self._first_pass().open(encoding="ascii") as file:
            yield from map(recorded_line, file)

    def _looked_at(self) -> Iterator[ScannedFile]:
        return self._scan(lambda _path, _status: "").files()

    def _scan(self, hash_of: HashOf) -> TreeScan:
        return TreeScan(b"/", self.mount_points, self.excludes, hash_of, self.part)

    def _nodes(self, snapshot: str) -> Iterator[Node]:
        for line in self.restic.lines("ls", "--json", snapshot):
            node = parsed_node(json.loads(line))
            if node is not None:
                yield node

    def write_manifest(self, read_back: list[ManifestEntry]) -> int:
        """manifest.jsonl.gz from all entries; their number comes back."""
        others = sorted([*self.late, *read_back], key=lambda entry: tree_order(entry.path))
        settled = self._settled()
        count = 0
        path = self.directory / "manifest.jsonl.gz"
        with settled.open(encoding="ascii") as file, gzip.open(path, "wt", 6, "ascii") as manifest:
            for line in manifest_lines(sorted_entries(map(parsed_entry, file), others)):
                manifest.write(line)
                count += 1
        path.chmod(0o600)
        return count - 2

    def clean(self) -> None:
        for name in ("first_pass", "settled"):
            (self.directory / name).unlink(missing_ok=True)
        shutil.rmtree(self.directory / "read_back", ignore_errors=True)


def part_roots(part: PathSet | None, mount_points: list[str]) -> list[str]:
    """What restic is told to store: every filesystem, or of a part its paths and what is mounted
    below them.
    """
    if part is None:
        return mount_points
    return sorted({*part.paths, *(point for point in mount_points if part.covers(point))})


def _server_entry(seen: Seen) -> ManifestEntry:
    """/ itself is in no snapshot and changes with every file in it: it is taken last."""
    if seen.path == "/" and seen.second is not None:
        return seen.second.entry
    if seen.first is None:
        raise ScriptFailed(f"{seen.path!r} was not read")
    return seen.first.entry


def sorted_entries(
    left: Iterator[ManifestEntry], right: list[ManifestEntry]
) -> Iterator[ManifestEntry]:
    """Both, in tree order."""
    for a, b in merged_by_path(left, right, lambda entry: entry.path):
        entry = a if a is not None else b
        if entry is not None:
            yield entry


def take_backup(wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    backup = Backup(wanted)
    try:
        dumped = backup.dump()
        backup.record_layout()
        emit("backup_step", name="reading")
        backup.read_files()
        backup.watch.lap("reading")
        emit("backup_step", name="storing")
        summary = backup.store()
        backup.watch.lap("storing")
        emit("backup_step", name="comparing")
        snapshot = summary["snapshot_id"]
        moved = backup.compare(snapshot)
        backup.watch.lap("comparing")
        files = SnapshotFiles(backup.restic, snapshot, backup.directory / "read_back")
        read_back = files.entries(moved)
        backup.watch.lap("reading_back")
        entries = backup.write_manifest(read_back)
        backup.watch.lap("manifest")
    finally:
        backup.clean()
    for problem in backup.incomplete[:SHOWN_PATHS]:
        say(f"incomplete: {problem}")
    result: dict[str, Any] = {
        "snapshot_id": snapshot,
        "complete": not backup.incomplete,
        "incomplete": backup.incomplete[:SHOWN_PATHS],
        "files": entries,
        "bytes": summary.get("total_bytes_processed", 0),
        "added_bytes": summary.get("data_added", 0),
        "roots": backup.roots,
        "databases": dumped,
        "moved": len(moved),
        "moved_paths": [entry.path for entry in read_back[:SHOWN_PATHS]],
        "warnings": backup.warnings,
        "manifest": "manifest.jsonl.gz",
        "layout": "layout.json",
        "seconds": backup.watch.seconds,
    }
    if backup.incomplete:
        return INCOMPLETE, {**result, "error": incompleteness(backup.incomplete)}
    return 0, result


if __name__ == "__main__":
    run_script(take_backup)
