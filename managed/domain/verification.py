"""Does a snapshot hold what its manifest says? Decisions on what was read from the bucket."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from managed.domain.manifests import EntryKind, ManifestEntry, listed_path
from managed.domain.snapshots import SnapshotFile

_KINDS: Final = {
    "file": EntryKind.FILE,
    "dir": EntryKind.DIRECTORY,
    "symlink": EntryKind.SYMLINK,
    "fifo": EntryKind.FIFO,
    "chardev": EntryKind.CHARACTER_DEVICE,
    "dev": EntryKind.BLOCK_DEVICE,
}
_ALWAYS_READ: Final = ("/etc/fstab", "/etc/passwd", "/etc/shadow", "/etc/ssh/sshd_config")
_LARGEST_SAMPLE: Final = 32 * 1024 * 1024


class _Shape(NamedTuple):
    """What a listing tells of a file; None where it does not matter for its kind."""

    kind: EntryKind | None
    owner: tuple[int, int]
    mode: int | None
    size: int | None


def snapshot_differences(
    manifest: Iterable[ManifestEntry], files: Iterable[SnapshotFile]
) -> list[str]:
    """Sentences for every path that one has and the other has not, or that differs in kind,
    owner, mode or size. Sockets are nobody's, and restic keeps nothing of / itself. Several names
    that are not UTF-8 can be listed as one: then there must be as many files of each shape.
    """
    listed: defaultdict[str, Counter[_Shape]] = defaultdict(Counter)
    for file in files:
        if file.kind != "socket":
            kind, owner = _KINDS.get(file.kind), (file.uid, file.gid)
            listed[file.path][_shape(kind, owner, file.mode, file.size)] += 1
    problems = []
    for entry in manifest:
        if entry.path != "/":
            problems += _taken_from(listed[listed_path(entry.path)], entry)
    for path, left in listed.items():
        sentence = f"{path!r} is in the snapshot, but not in the manifest"
        problems += [sentence] * left.total()
    return problems


def _taken_from(listed: Counter[_Shape], entry: ManifestEntry) -> list[str]:
    """Take what fits the entry best out of the files listed under its path; say what differs."""
    wanted = _shape(entry.kind, (entry.uid, entry.gid), entry.mode, entry.size)
    seen = wanted if wanted in listed else next(iter(listed), None)
    if seen is None:
        return [f"{entry.path!r} is not in the snapshot"]
    listed[seen] -= 1
    if not listed[seen]:
        del listed[seen]
    compared = zip(_Shape._fields, wanted, seen, strict=True)
    names = [name for name, one, other in compared if one != other]
    if "kind" in names:
        names = ["kind"]
    return [f"{entry.path!r}: the {name} differs from the manifest" for name in names]


def _shape(kind: EntryKind | None, owner: tuple[int, int], mode: int, size: int) -> _Shape:
    return _Shape(
        kind,
        owner,
        mode=None if kind is EntryKind.SYMLINK else mode,
        size=size if kind is EntryKind.FILE else None,
    )


def files_to_read(manifest: Sequence[ManifestEntry], seed: str, count: int) -> list[ManifestEntry]:
    """Whose content is compared: a few that every restore needs, and others by chance. The seed
    makes the choice repeatable, and another one for the next snapshot.
    """
    readable = [
        entry
        for entry in manifest
        if entry.kind is EntryKind.FILE and 0 < entry.size <= _LARGEST_SAMPLE
    ]
    needed = [entry for entry in readable if entry.path in _ALWAYS_READ]
    others = [entry for entry in readable if entry.path not in _ALWAYS_READ]
    chosen = random.Random(seed).sample(others, min(len(others), max(0, count - len(needed))))  # noqa: S311
    return needed + chosen


def content_differences(entries: Sequence[ManifestEntry], digests: Mapping[str, str]) -> list[str]:
    """Sentences for entries whose content as read (path to SHA-256) is not the manifest's."""
    return [
        f"the content of {entry.path!r} is not what the server had"
        for entry in entries
        if digests.get(entry.path) != entry.sha256
    ]
