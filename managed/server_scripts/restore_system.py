#!/usr/bin/env python3
"""Restore a whole server to its own disk from a snapshot, from inside a rescue session.

Input (one JSON argument): disk_serial, layout (the recorded one), repository, restic (program,
may be empty), snapshot, manifest (path of manifest.jsonl.gz in the rescue session). Secrets come
as RESTIC_PASSWORD, RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in the environment.

Every file is compared with the manifest before anything is rewritten, and again after the boot
loader was installed; then the only differences allowed are those that the boot loader made and
swap files, which no backup holds, and `rewritten` in the result lists each with its reason.
Started again after an interruption it begins anew: nothing on the disk is kept.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from managed.domain.disk_layout_documents import parsed_layout
from managed.domain.disk_layouts import DiskLayout, check_restorable, layout_for_disk
from managed.domain.errors import ManagedError
from managed.domain.manifests import (
    DamagedManifest,
    Difference,
    ManifestEntry,
    manifest_differences,
    parsed_manifest,
)
from managed.server_scripts._boot_loader import install_boot_loader, kernel_filesystems
from managed.server_scripts._disk import (
    TARGET,
    disk_size,
    disk_with_serial,
    make_filesystems,
    mount_layout,
    partition_disk,
    release_disk,
    unmount_below,
)
from managed.server_scripts._files import Excludes, HashOnce, TreeScan, sha256_of
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
from managed.server_scripts._swap_files import make_swap_file

CACHE = TARGET / ".managed-restic-cache"
EMPTY_DIRECTORIES = {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}
SHOWN_DIFFERENCES = 50


class Restore:
    """One restore from beginning to end."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.watch = Stopwatch()
        self.disk = disk_with_serial(wanted["disk_serial"])
        self.layout = fitted_layout(wanted["layout"], disk_size(self.disk))
        self.mount_points = [p.filesystem.mount_point for p in self.layout.mounted if p.filesystem]
        self.hashes = HashOnce()
        self.root = self._checked_manifest()

    def _checked_manifest(self) -> ManifestEntry:
        """Read the manifest to its end before the disk is touched; the entry of / comes back."""
        try:
            entries = self.expected()
            root = next(entries)
            count = 1 + sum(1 for _ in entries)
        except (OSError, EOFError, DamagedManifest, StopIteration) as error:
            raise ScriptFailed(
                f"the manifest can't be used: {error}", "evidence-missing"
            ) from error
        if root.path != "/":
            raise ScriptFailed("the manifest does not begin with /", "evidence-missing")
        say(f"the manifest has {count} entries")
        return root

    def expected(self) -> Iterator[ManifestEntry]:
        with gzip.open(self.wanted["manifest"], "rt", encoding="ascii") as lines:
            yield from parsed_manifest(lines)

    def found(self, progress: Progress) -> Iterator[ManifestEntry]:
        scan = TreeScan(bytes(TARGET), self.mount_points, Excludes(()), self.hashes)
        for count, scanned in enumerate(scan.files(), start=1):
            progress.show(files=count)
            yield scanned.entry

    def differences(self, rewritten: frozenset[str] = frozenset()) -> list[Difference]:
        """How the disk differs from the manifest; at most a few thousand are counted."""
        found = self.found(Progress("check_progress"))
        return list(islice(manifest_differences(self.expected(), found, rewritten), 10_000))

    def lay_out(self) -> None:
        release_disk(self.disk)
        partition_disk(self.disk, self.layout)
        make_filesystems(self.disk, self.layout)
        mount_layout(self.disk, self.layout)

    def bring_files(self) -> None:
        restic = Restic(self.wanted.get("restic", ""), self.wanted["repository"], str(CACHE))
        words = ["restore", self.wanted["snapshot"], "--target", str(TARGET), "--sparse"]
        try:
            restic.follow(words, "restore_progress")
        finally:
            shutil.rmtree(CACHE, ignore_errors=True)
        if restic.errors:
            raise ScriptFailed(f"restic could not restore everything: {restic.errors[0]}")

    def finish_directories(self) -> None:
        """Directories that no snapshot holds: those that are empty in it, and / itself."""
        for name, mode in EMPTY_DIRECTORIES.items():
            place = TARGET / name
            if not os.path.lexists(place):
                place.mkdir()
                place.chmod(mode)
        for point in self.mount_points:
            drop_surplus_lost_and_found(TARGET / point.lstrip("/"), point, self.expected)
        for name, value in self.root.xattrs:
            os.setxattr(TARGET, name, bytes.fromhex(value))
        os.chown(TARGET, self.root.uid, self.root.gid)
        TARGET.chmod(self.root.mode)
        os.utime(TARGET, ns=(self.root.mtime_ns, self.root.mtime_ns))


def drop_surplus_lost_and_found(place: Path, point: str, expected: Any) -> None:
    """mkfs made one; a server whose administrator had removed it gets none."""
    directory = place / "lost+found"
    if directory.is_dir() and not any(directory.iterdir()):
        path = f"{point.rstrip('/')}/lost+found"
        if not any(entry.path == path for entry in expected()):
            directory.rmdir()


def fitted_layout(document: dict[str, Any], size: int) -> DiskLayout:
    """The recorded layout for this disk; ScriptFailed when it can't be laid out."""
    try:
        layout = parsed_layout(document)
        check_restorable(layout)
        return layout_for_disk(layout, size)
    except ManagedError as error:
        raise ScriptFailed(error.message, error.code, error.hint) from error


def demand_none(differences: list[Difference], when: str) -> None:
    if not differences:
        return
    for difference in differences[:SHOWN_DIFFERENCES]:
        say(f"differs: {difference}")
    text = "".join(f"{difference}\n" for difference in differences)
    write_atomically(run_directory() / "differences.txt", text.encode("utf-8", "backslashreplace"))
    raise ScriptFailed(
        f"{when}, {len(differences)} properties of files are not as in the manifest, "
        f"first {differences[0]}",
        "evidence-missing",
    )


def rewritten_paths(differences: list[Difference], layout: DiskLayout) -> dict[str, str]:
    """Path to reason for what making swap files and installing the boot loader changed; other
    differences are errors.
    """
    places = boot_loader_places(layout)
    swap_files = {file.path for file in layout.swap_files}
    reasons: dict[str, str] = {}
    others = []
    for difference in differences:
        path, field = difference.path, difference.field
        if path in swap_files:
            reasons[path] = "a swap file, made anew: its content is in no backup"
        elif is_below(path, places):
            known = reasons.get(path)
            reasons[path] = f"{known}, {field}" if known else f"grub-install wrote it anew: {field}"
        else:
            others.append(difference)
    demand_none(others, "After rewriting the boot loader")
    return reasons


def boot_loader_places(layout: DiskLayout) -> tuple[str, ...]:
    """The directories in which installing the boot loader may write."""
    efi = layout.efi_directory
    return ("/boot/grub", f"{efi}/EFI") if efi else ("/boot/grub",)


def boot_files(places: Sequence[str]) -> dict[bytes, tuple[int, str]]:
    """Modification time and sha256 (empty for directories) of what the boot loader may write."""
    found = {}
    for place in places:
        for directory, _, names in os.walk(bytes(TARGET) + place.encode()):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                found[path] = os.lstat(path).st_mtime_ns, sha256_of(path)
    return found


def put_times_back(before: dict[bytes, tuple[int, str]], places: Sequence[str]) -> None:
    """grub-install copies hundreds of modules that were there already: where the content is the
    same as before, the restored time is right. Directories come last, files would move theirs.
    """
    for path, (time, digest) in sorted(boot_files(places).items(), reverse=True):
        known_time, known_digest = before.get(path, (time, digest))
        if known_digest == digest and known_time != time:
            os.utime(path, ns=(known_time, known_time), follow_symlinks=False)


def is_below(path: str, places: Sequence[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def restore_system(wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    restore = Restore(wanted)
    try:
        emit("restore_step", name="partitions")
        restore.lay_out()
        restore.watch.lap("partitions")
        emit("restore_step", name="files")
        restore.bring_files()
        restore.finish_directories()
        restore.watch.lap("files")
        emit("restore_step", name="check")
        demand_none(restore.differences(), "After the restore")
        restore.watch.lap("check")
        emit("restore_step", name="boot_loader")
        for file in restore.layout.swap_files:
            make_swap_file(TARGET, file)
        places = boot_loader_places(restore.layout)
        before = boot_files(places)
        with kernel_filesystems():
            written = install_boot_loader(restore.disk, restore.layout)
        put_times_back(before, places)
        restore.watch.lap("boot_loader")
        emit("restore_step", name="check_again")
        differences = restore.differences()
        rewritten = rewritten_paths(differences, restore.layout)
        surplus = {d.path for d in differences if d.field == "path" and d.found == "present"}
        checked = sum(1 for _ in restore.expected())
        os.sync()
        restore.watch.lap("check_again")
    finally:
        unmount_below(TARGET)
    restore.watch.lap("unmount")
    for path, reason in sorted(rewritten.items()):
        say(f"rewritten: {path!r}: {reason}")
    return 0, {
        "checked": checked,
        "equal": checked - len(rewritten.keys() - surplus),
        "rewritten": [{"path": p, "reason": r} for p, r in sorted(rewritten.items())],
        "written_outside_files": written,
        "disk": str(restore.disk),
        "seconds": restore.watch.seconds,
    }


if __name__ == "__main__":
    run_script(restore_system)
