"""Restores of files and folders: what may be asked for, and what of a manifest answers it."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

from managed.domain.errors import InvalidInput, ManagedError, NotFound, NotSupported
from managed.domain.manifest_parts import PathSet, part_of
from managed.domain.manifests import EntryKind, ManifestEntry
from managed.domain.servers import Server
from managed.domain.snapshots import SnapshotRecord

MOST_PATHS: Final = 100
MOST_BYTES: Final = 20_000
"""Of all paths together: they have to fit, escaped twice, into one argument of a program."""

_IN_NO_BACKUP: Final = PathSet(("/proc", "/sys", "/dev", "/run"))
_DATABASE_DIRECTORIES: Final = ("/var/lib/mysql", "/var/lib/postgresql")
_DATABASE_MARKS: Final = ("/global/pg_control", "/ibdata1")
"""A file so called is in every data directory of PostgreSQL; of MariaDB and MySQL."""

_MOST_SIBLINGS: Final = 10_000
_NEAR: Final = 3


class RestoreTarget(StrEnum):
    """Where restored files go: into a new folder, or over what is there now."""

    BESIDE = "beside"
    IN_PLACE = "in-place"

    def folder(self, job_id: str) -> str:
        """Where they arrive and are compared with the manifest; in place they go on from there."""
        if self is RestoreTarget.BESIDE:
            return f"/var/restored/{job_id}"
        return f"/var/lib/managed/restores/{job_id}"


def checked_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """The paths, each once, in order. InvalidInput for what can't be restored."""
    if not 1 <= len(paths) <= MOST_PATHS:
        raise InvalidInput(f"1 to {MOST_PATHS} paths can be restored", field="paths")
    if sum(len(path.encode("utf-8", "surrogateescape")) for path in paths) > MOST_BYTES:
        raise InvalidInput(f"the paths have more than {MOST_BYTES} bytes together", field="paths")
    for path in paths:
        _require_path(path)
    return tuple(sorted(set(paths)))


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths without those that lie below others of them."""
    every = set(paths)
    return tuple(path for path in sorted(every) if not PathSet(every - {path}).covers(path))


def _require_path(path: str) -> None:
    if not path.startswith("/"):
        raise InvalidInput(f"{path!r} is no absolute path", field="paths")
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if path != normal:
        raise InvalidInput(
            f"{path!r} is not in its plain form", hint=f"Write {normal}.", field="paths"
        )
    if path == "/":
        raise InvalidInput(
            "/ is the whole server",
            hint="Name the folders that you need, or ask for a job of the kind restore.",
            field="paths",
        )
    if _IN_NO_BACKUP.covers(path):
        raise InvalidInput(
            f"{path} is in no backup: the system makes it at every boot", field="paths"
        )


def source_refusal(source: Server, target: Server) -> ManagedError | None:
    """Why files of one server may not be restored to the other, or None. Both belong to the same
    customer, or both to the provider.
    """
    if source.customer_id == target.customer_id:
        return None
    return NotSupported(
        f"files of {source.name} cannot be restored to {target.name}:"
        " they do not belong to the same customer",
        server_id=target.server_id,
    )


def snapshot_for_files(
    records: Sequence[SnapshotRecord], snapshot_id: str | None, as_of: datetime | None
) -> SnapshotRecord | None:
    """The verified snapshot of that id, which may be a safety snapshot; without an id, the newest
    verified backup of the whole server, not newer than `as_of`.
    """
    usable = [
        record
        for record in records
        if record.verified_at is not None
        and (record.snapshot_id == snapshot_id if snapshot_id else not record.paths)
        and (as_of is None or record.time <= as_of)
    ]
    return max(usable, key=lambda record: record.time, default=None)


class PartSurvey:
    """What a manifest holds of the wanted paths, counted while it goes by."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.wanted = PathSet(paths)
        self.entries = 0
        self.size = 0
        self.data_directories: set[str] = set()
        self.kinds: dict[str, EntryKind] = {}

    def part(self, entries: Iterable[ManifestEntry]) -> Iterator[ManifestEntry]:
        """The entries of the part, as `part_of` gives them."""
        for entry in part_of(self._noted(entries), self.wanted):
            if self.wanted.covers(entry.path):
                self.entries += 1
                self.size += 0 if entry.hard_link else entry.size
                if entry.path in self.wanted.paths:
                    self.kinds[entry.path] = entry.kind
            yield entry

    @property
    def missing(self) -> list[str]:
        """The wanted paths that the manifest does not hold."""
        return [path for path in self.wanted.paths if path not in self.kinds]

    def _noted(self, entries: Iterable[ManifestEntry]) -> Iterator[ManifestEntry]:
        for entry in entries:
            for mark in _DATABASE_MARKS:
                if entry.path.endswith(mark):
                    self.data_directories.add(entry.path.removesuffix(mark) or "/")
            yield entry


def missing_paths(missing: Sequence[str], entries: Iterable[ManifestEntry]) -> NotFound:
    """The error for paths that the snapshot does not hold. It names what is called nearly so: of
    the first one's folder, or of the same name elsewhere.
    """
    path = missing[0]
    folder, _, name = path.rpartition("/")
    siblings: list[str] = []
    elsewhere: list[str] = []
    for entry in entries:
        other_folder, _, other = entry.path.rpartition("/")
        if other_folder == folder and len(siblings) < _MOST_SIBLINGS:
            siblings.append(other)
        elif other == name and len(elsewhere) < _NEAR:
            elsewhere.append(entry.path)
    near = [f"{folder}/{other}" for other in get_close_matches(name, siblings, _NEAR)]
    near = [*near, *elsewhere][:_NEAR]
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return NotFound(
        f"the snapshot does not hold {path!r}{more}",
        hint=f"There is {', '.join(near)}." if near else "List the paths of the snapshot.",
        missing=list(missing),
        near=[str(each) for each in near],
    )


def in_place_refusal(
    paths: Sequence[str], data_directories: Collection[str]
) -> NotSupported | None:
    """Why these paths can't be restored over what is there now, or None."""
    wanted = PathSet(paths)
    for directory in sorted({*_DATABASE_DIRECTORIES, *data_directories}):
        held = PathSet((directory,))
        touched = next((path for path in paths if held.covers(path)), None)
        if touched is None and wanted.covers(directory) and directory in data_directories:
            touched = next(path for path in paths if PathSet((path,)).covers(directory))
        if touched is not None:
            return NotSupported(
                f"{touched} cannot be restored in place: {directory} holds the files of a database,"
                " which were copied while they changed",
                hint="Restore beside, and load what you need from the dumps that are in the"
                " backup, below /var/backups/managed/databases.",
                path=touched,
            )
    return None
