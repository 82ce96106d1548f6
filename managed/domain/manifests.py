"""Manifests: what every file of a backup looks like, kept apart from the backup itself.

A manifest is text: a header line, one line of JSON per file, and a last line with the count, so
that a manifest cut short is noticed. Entries come in *tree order*: depth first, names sorted by
their bytes; that is also restic's order, so two listings are compared in one pass and in little
memory. Paths are text that may hold any byte but NUL (UTF-8 with surrogate escapes).

This module also travels to servers inside scripts (see managed.server_scripts): it uses the
standard library of Python 3.9 only, and raises ValueError there as here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar

MANIFEST_VERSION = 1
REPLACED = "\ufffd"

T = TypeVar("T")


class DamagedManifest(ValueError):
    """The text is no manifest, is cut short, or is of a version that this program can't read."""


class EntryKind(Enum):
    """What a path is. Sockets are left out everywhere: a restore can't bring them back."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"


class EntrySource(Enum):
    """Where an entry was read: on the server beside restic, or from the snapshot itself, because
    the file changed while the backup ran.
    """

    SERVER = "server"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class ManifestEntry:
    """One path. `mode` holds the permission bits with setuid, setgid and sticky; `size` in bytes
    and `sha256` (hexadecimal) are set for files; `mtime_ns` is in nanoseconds since 1970;
    `xattrs` are name and hexadecimal value, sorted, and include ACLs and capabilities; `target`
    is a symlink's text; `hard_link` is the first path (in tree order) of the same inode when it
    has several names, else empty; `device` is major and minor of device nodes.
    """

    path: str
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    sha256: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()
    target: str = ""
    hard_link: str = ""
    device: tuple[int, int] | None = None
    source: EntrySource = EntrySource.SERVER


@dataclass(frozen=True)
class Difference:
    """One field of one path that is not as expected; field "path" means missing or surplus."""

    path: str
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path!r}: {self.field} is {self.found}, expected {self.expected}"


COMPARED_FIELDS = (
    "kind",
    "mode",
    "uid",
    "gid",
    "size",
    "sha256",
    "mtime_ns",
    "xattrs",
    "target",
    "hard_link",
    "device",
)
_OPTIONAL_FIELDS = ("size", "sha256", "target", "hard_link")


def listed_path(path: str) -> str:
    """A path as restic's JSON lists it: with U+FFFD for every byte that is not UTF-8."""
    return re.sub("[\udc80-\udcff]", REPLACED, path)


def is_ambiguous(path: str) -> bool:
    """Whether restic's JSON can't tell this path from others."""
    return REPLACED in listed_path(path)


def tree_order(path: str) -> list[bytes]:
    """The key that sorts absolute paths in tree order."""
    return path.encode("utf-8", "surrogateescape").split(b"/")


def entry_line(entry: ManifestEntry) -> str:
    """One line of ASCII with its newline."""
    document: dict[str, Any] = {
        "path": entry.path,
        "kind": entry.kind.value,
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
    }
    for name in _OPTIONAL_FIELDS:
        value = getattr(entry, name)
        if value:
            document[name] = value
    if entry.xattrs:
        document["xattrs"] = dict(entry.xattrs)
    if entry.device is not None:
        document["device"] = list(entry.device)
    if entry.source is not EntrySource.SERVER:
        document["source"] = entry.source.value
    return json.dumps(document, separators=(",", ":")) + "\n"


def parsed_entry(line: str) -> ManifestEntry:
    """The entry of one line; DamagedManifest when it is none."""
    try:
        return _entry_of(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedManifest(f"not a manifest entry: {line[:200]!r}") from error


def _entry_of(document: dict[str, Any]) -> ManifestEntry:
    device = document.get("device")
    return ManifestEntry(
        path=_absolute(document["path"]),
        kind=EntryKind(document["kind"]),
        mode=int(document["mode"]),
        uid=int(document["uid"]),
        gid=int(document["gid"]),
        mtime_ns=int(document["mtime_ns"]),
        size=int(document.get("size", 0)),
        sha256=str(document.get("sha256", "")),
        xattrs=tuple(sorted((str(k), str(v)) for k, v in document.get("xattrs", {}).items())),
        target=str(document.get("target", "")),
        hard_link=str(document.get("hard_link", "")),
        device=None if device is None else (int(device[0]), int(device[1])),
        source=EntrySource(document.get("source", EntrySource.SERVER.value)),
    )


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    return path


def manifest_lines(entries: Iterable[ManifestEntry]) -> Iterator[str]:
    """The whole manifest, line by line; ValueError when entries are not in tree order."""
    yield json.dumps({"manifest": MANIFEST_VERSION}) + "\n"
    count = 0
    previous: list[bytes] = []
    for entry in entries:
        order = tree_order(entry.path)
        if order <= previous:
            raise ValueError(f"{entry.path!r} is out of order")
        previous = order
        yield entry_line(entry)
        count += 1
    yield json.dumps({"entries": count}) + "\n"


def parsed_manifest(lines: Iterable[str]) -> Iterator[ManifestEntry]:
    """The entries of a manifest, as they are read. DamagedManifest as soon as a line is wrong,
    entries are out of order, or the text ends before its last line.
    """
    iterator = iter(lines)
    _check_header(next(iterator, ""))
    count = 0
    previous: list[bytes] = []
    for line in iterator:
        if line.startswith('{"entries"'):
            _check_end(line, count)
            if next(iterator, None) is not None:
                raise DamagedManifest("the manifest goes on after its end")
            return
        entry = parsed_entry(line)
        order = tree_order(entry.path)
        if order <= previous:
            raise DamagedManifest(f"{entry.path!r} is out of order")
        previous = order
        count += 1
        yield entry
    raise DamagedManifest(f"the manifest is cut short after {count} entries")


def _check_header(line: str) -> None:
    try:
        version = json.loads(line)["manifest"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedManifest("this is not a manifest") from error
    if version != MANIFEST_VERSION:
        raise DamagedManifest(f"manifest version {version} is unknown here")


def _check_end(line: str, count: int) -> None:
    try:
        expected = json.loads(line)["entries"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedManifest("the manifest's last line is damaged") from error
    if expected != count:
        raise DamagedManifest(f"the manifest holds {count} entries and announces {expected}")


def merged_by_path(
    left: Iterable[T], right: Iterable[T], path_of: Callable[[T], str]
) -> Iterator[tuple[T | None, T | None]]:
    """Both listings, each in tree order, side by side: what only one has stands beside None."""
    left_iterator, right_iterator = iter(left), iter(right)
    a, b = next(left_iterator, None), next(right_iterator, None)
    while a is not None or b is not None:
        order = _compared(a, b, path_of)
        yield (a if order <= 0 else None), (b if order >= 0 else None)
        if order <= 0:
            a = next(left_iterator, None)
        if order >= 0:
            b = next(right_iterator, None)


def _compared(a: T | None, b: T | None, path_of: Callable[[T], str]) -> int:
    if a is None:
        return 1
    if b is None:
        return -1
    left, right = path_of(a), path_of(b)
    if left == right:
        return 0
    return 1 if tree_order(left) > tree_order(right) else -1


def manifest_differences(
    expected: Iterable[ManifestEntry],
    found: Iterable[ManifestEntry],
    rewritten: Collection[str] = (),
) -> Iterator[Difference]:
    """How `found` differs from `expected`, both in tree order; nothing for paths in `rewritten`.

    `source` is no property of a file and is not compared.
    """
    for wanted, seen in merged_by_path(expected, found, lambda entry: entry.path):
        if wanted is None and seen is not None and seen.path not in rewritten:
            yield Difference(seen.path, "path", "absent", "present")
        elif seen is None and wanted is not None and wanted.path not in rewritten:
            yield Difference(wanted.path, "path", "present", "absent")
        elif wanted is not None and seen is not None and wanted.path not in rewritten:
            yield from entry_differences(wanted, seen)


def entry_differences(wanted: ManifestEntry, seen: ManifestEntry) -> Iterator[Difference]:
    """The fields in which two entries of one path differ."""
    if wanted == seen:
        return
    for name in COMPARED_FIELDS:
        left, right = getattr(wanted, name), getattr(seen, name)
        if left != right:
            yield Difference(wanted.path, name, _shown(name, left), _shown(name, right))


def _shown(name: str, value: Any) -> str:
    if name == "mode":
        return f"{value:04o}"
    return str(value.value) if isinstance(value, Enum) else str(value)


def from_snapshot(entry: ManifestEntry) -> ManifestEntry:
    """The same entry, marked as read from the snapshot."""
    return replace(entry, source=EntrySource.SNAPSHOT)
