"""Putting restored files over what is there now.

Customers' programs own parts of the tree and may change it meanwhile: a directory that one of them
turns into a symlink would lead root's writing elsewhere. So every directory is opened below the one
before, and never through a symlink. Files are put there by a rename: who reads one sees the old or
the new, and who holds the old one open keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from managed.domain.manifest_parts import PathSet, directories_above
from managed.domain.manifests import EntryKind, ManifestEntry
from managed.server_scripts._file_metadata import set_properties
from managed.server_scripts._files import bytes_of
from managed.server_scripts._layout_survey import Mount, covered_mounts
from managed.server_scripts._run import ScriptFailed, run_program
from managed.server_scripts._staged_files import WantedFiles, require_room

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenDirectory(NamedTuple):
    """A directory on the way to where files are put. `entry` is what it is to become when all below
    it is there; None leaves it as it is.
    """

    path: str
    descriptor: int
    entry: ManifestEntry | None


def require_placeable(files: WantedFiles, mounts: list[Mount]) -> None:
    """ScriptFailed, before anything is touched, when a restored path would go through a symlink or
    to a filesystem that no backup covers, or a file would take the place of a directory.
    """
    covered = {mount.place for mount in covered_mounts(mounts)}
    uncovered = PathSet(mount.place for mount in mounts if mount.place not in covered)
    for path in files.part.paths:
        for above in directories_above(path):
            status = status_of(above)
            if status is not None and not stat.S_ISDIR(status.st_mode):
                kind = "a symlink" if stat.S_ISLNK(status.st_mode) else "no directory"
                raise ScriptFailed(
                    f"{path!r} can't be restored in place: {above!r} is {kind} now",
                    "conflict",
                    "Restore beside, and copy what you need.",
                )
    for entry in files.wanted():
        if uncovered.covers(entry.path):
            raise ScriptFailed(
                f"{entry.path!r} is on a filesystem now that backups do not cover",
                "conflict",
                "Restore beside, and copy what you need.",
            )
        status = status_of(entry.path)
        if entry.kind is EntryKind.DIRECTORY or status is None:
            continue
        if stat.S_ISDIR(status.st_mode):
            raise ScriptFailed(
                f"{entry.path!r} is a directory now and was a {entry.kind.value}",
                "conflict",
                "Move the directory away, or restore beside.",
            )


def require_room_elsewhere(place: Path, files: WantedFiles) -> None:
    """ScriptFailed when a wanted path is on another filesystem than the arriving files, and there
    is no room on it.
    """
    ours = place.stat().st_dev
    for path in files.part.paths:
        above = next(a for a in reversed(directories_above(path)) if status_of(a) is not None)
        if os.stat(bytes_of(above)).st_dev == ours:
            continue
        part = PathSet((path,))
        sizes = [0 if e.hard_link else e.size for e in files.wanted() if part.covers(e.path)]
        require_room(above, sum(sizes), len(sizes))


def status_of(path: str) -> os.stat_result | None:
    try:
        return os.lstat(bytes_of(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


class Placing:
    """Moves the files of `place`, which are proven to be right, to where they belong."""

    def __init__(self, place: Path, files: WantedFiles) -> None:
        self.place = bytes(place)
        self.files = files
        self.open: list[OpenDirectory] = []

    def run(self) -> None:
        """ScriptFailed says what was in the way; what was placed before stays."""
        try:
            for entry in self.files.all():
                self._close_down_to(entry.path)
                if entry.kind is EntryKind.DIRECTORY:
                    self.open.append(self._entered(entry))
                else:
                    self._put(entry)
            self._close_down_to("")
        except OSError as error:
            raise ScriptFailed(
                f"{entry.path!r} could not be put in its place: {error.strerror}"
            ) from error
        finally:
            for directory in self.open:
                os.close(directory.descriptor)

    def _close_down_to(self, path: str) -> None:
        """Leave the directories that `path` is not below, and finish them."""
        while self.open and not path.startswith(f"{self.open[-1].path.rstrip('/')}/"):
            directory = self.open.pop()
            with closing_descriptor(directory.descriptor):
                if directory.entry is not None:
                    set_properties(directory.descriptor, directory.entry)

    def _entered(self, entry: ManifestEntry) -> OpenDirectory:
        """The directory of the entry, opened; made where there is none."""
        if entry.path == "/":
            return OpenDirectory("/", os.open("/", DIRECTORY_FLAGS), None)
        above, name = self.open[-1].descriptor, name_of(entry)
        covered = self.files.part.covers(entry.path)
        is_new = False
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            if covered and not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=above)
                raise FileNotFoundError
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=above)
            is_new = True
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=above)
        return OpenDirectory(entry.path, descriptor, entry if covered or is_new else None)

    def _put(self, entry: ManifestEntry) -> None:
        above, name = self.open[-1].descriptor, name_of(entry)
        source = self.place + bytes_of(entry.path)
        try:
            os.rename(source, name, dst_dir_fd=above)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._put_across(entry, source, above, name)

    def _put_across(self, entry: ManifestEntry, source: bytes, above: int, name: bytes) -> None:
        """The same to another filesystem: a copy beside, and a rename from there."""
        with private_directory(above) as inside:
            if entry.hard_link:
                link_from(entry.hard_link, inside, name)
            else:
                there = b"/proc/%d/fd/%d/%s" % (os.getpid(), inside, name)
                run_program(("cp", "--archive", "--no-target-directory", "--", source, there))
            os.rename(name, name, src_dir_fd=inside, dst_dir_fd=above)


@contextlib.contextmanager
def private_directory(above: int) -> Iterator[int]:
    """A directory in the one that is open, while it is needed. Root alone can enter it, so that
    nobody can lay a symlink in the way of what is written there.
    """
    name = b".managed-restore-" + secrets.token_hex(8).encode()
    os.mkdir(name, 0o700, dir_fd=above)
    with closing_descriptor(os.open(name, DIRECTORY_FLAGS, dir_fd=above)) as inside:
        status = os.fstat(inside)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ScriptFailed("somebody has exchanged a directory while files were put in place")
        try:
            yield inside
        finally:
            for left in os.listdir(inside):
                os.unlink(left, dir_fd=inside)
            os.rmdir(name, dir_fd=above)


def link_from(first: str, directory: int, name: bytes) -> None:
    """Give the file at the path `first` this name in the directory too."""
    with opened_above(first) as (above, first_name):
        os.link(first_name, name, src_dir_fd=above, dst_dir_fd=directory, follow_symlinks=False)


def name_of(entry: ManifestEntry) -> bytes:
    return os.path.basename(bytes_of(entry.path))


@contextlib.contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened_above(path: str) -> Iterator[tuple[int, bytes]]:
    """The directory that holds the path, opened without following a symlink, and the name in it."""
    *parts, name = bytes_of(path).strip(b"/").split(b"/")
    descriptor = os.open("/", DIRECTORY_FLAGS)
    for part in parts:
        with closing_descriptor(descriptor):
            descriptor = os.open(part, DIRECTORY_FLAGS, dir_fd=descriptor)
    with closing_descriptor(descriptor):
        yield descriptor, name
