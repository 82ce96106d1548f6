"""The folder of a restore's own in which files arrive, before anybody else sees them."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from managed.domain.manifest_parts import PathSet
from managed.domain.manifests import DamagedManifest, EntryKind, ManifestEntry, parsed_manifest
from managed.server_scripts._file_metadata import set_properties
from managed.server_scripts._files import bytes_of
from managed.server_scripts._run import ScriptFailed

SPACE_TO_SPARE = 16 << 20
BLOCK = 4096


class WantedFiles:
    """The part of a backup's manifest that is restored; `file` is written by the provider."""

    def __init__(self, file: str, paths: list[str]) -> None:
        self.file = Path(file)
        self.part = PathSet(paths)

    def all(self) -> Iterator[ManifestEntry]:
        """The wanted entries and the directories that lead to them; ScriptFailed when damaged."""
        try:
            with gzip.open(self.file, "rt", encoding="ascii") as lines:
                yield from parsed_manifest(lines)
        except (OSError, EOFError, DamagedManifest) as error:
            raise ScriptFailed(
                f"the manifest can't be used: {error}", "evidence-missing"
            ) from error

    def wanted(self) -> Iterator[ManifestEntry]:
        return (entry for entry in self.all() if self.part.covers(entry.path))


def fresh_directory(place: Path) -> None:
    """Make it anew, root's alone; what an earlier try has left there goes."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    above = place.parent.lstat()
    if not stat.S_ISDIR(above.st_mode) or above.st_uid != os.getuid() or above.st_mode & 0o022:
        raise ScriptFailed(
            f"{place.parent} is no directory that root alone may write to",
            "conflict",
            f"Move {place.parent} away, or make it root's with mode 0700.",
        )
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)


def require_room(directory: str, size: int, entries: int) -> None:
    """ScriptFailed unless the filesystem has room for so many bytes in so many files."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    needed = size + entries * BLOCK + SPACE_TO_SPARE
    if free < needed:
        raise ScriptFailed(
            f"{free >> 20} MiB are free below {directory}, {needed >> 20} MiB are needed",
            "conflict",
            "Make room there, or ask for fewer files.",
        )
    if status.f_files and status.f_favail < entries:
        raise ScriptFailed(
            f"{status.f_favail} more files fit below {directory}, {entries} are needed", "conflict"
        )


def finish_files(place: Path, files: WantedFiles) -> None:
    """Of files whose content alone has arrived make those of the manifest: what has no content,
    names of one file, all properties. Can be done twice.
    """
    directories = []
    for entry in files.wanted():
        path = bytes(place) + bytes_of(entry.path)
        if entry.kind is EntryKind.DIRECTORY:
            os.makedirs(path, mode=0o700, exist_ok=True)
            directories.append((path, entry))
            continue
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if entry.hard_link:
            _replace_by_link(bytes(place) + bytes_of(entry.hard_link), path)
            continue
        _make_special(path, entry)
        set_properties(path, entry)
    for path, entry in reversed(directories):
        set_properties(path, entry)


def _replace_by_link(first: bytes, path: bytes) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    os.link(first, path, follow_symlinks=False)


def _make_special(path: bytes, entry: ManifestEntry) -> None:
    """What is no file and no directory is made by its entry alone."""
    if entry.kind is EntryKind.FILE:
        return
    if os.path.lexists(path):
        os.unlink(path)
    if entry.kind is EntryKind.SYMLINK:
        os.symlink(bytes_of(entry.target), path)
    elif entry.kind is EntryKind.FIFO:
        os.mkfifo(path, 0o600)
    else:
        kind = stat.S_IFCHR if entry.kind is EntryKind.CHARACTER_DEVICE else stat.S_IFBLK
        os.mknod(path, kind | 0o600, os.makedev(*(entry.device or (0, 0))))
