"""Does a snapshot hold what its manifest says? Decisions on what was read from the bucket.

Root on the server wrote both sides, and there may be millions of files: nothing is held of them
but what differs.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import zip_longest
from typing import Final, NamedTuple

from managed.domain.errors import EvidenceMissing
from managed.domain.manifests import (
    EntryKind,
    ManifestEntry,
    is_ambiguous,
    listed_path,
    tree_order,
)
from managed.domain.snapshots import SnapshotFile

MOST_FILES: Final = 20_000_000
"""No listing goes on for longer: a snapshot can be written so that it has no end."""

MOST_UNMATCHED: Final = 10_000
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


class _Listed(NamedTuple):
    """A file of either side under the path that restic's JSON has for it."""

    path: str
    shape: _Shape


def snapshot_differences(
    manifest: Iterable[ManifestEntry], files: Iterable[SnapshotFile]
) -> Iterator[str]:
    """Sentences for every path that one has and the other has not, or that differs in kind,
    owner, mode or size; both in tree order of their names' bytes. Sockets are nobody's, and restic
    keeps nothing of / itself. Several names that are not UTF-8 can be listed as one: then there
    must be as many files of each shape. EvidenceMissing when there is no end to the files.
    """
    unmatched = _Unmatched()
    for wanted, seen in _side_by_side(_listed_entries(manifest), _listed_files(files)):
        path = wanted.path if wanted else seen.path if seen else ""
        if is_ambiguous(path):
            unmatched.take(wanted, seen)
        else:
            yield from _differences(path, wanted and wanted.shape, seen and seen.shape)
    yield from unmatched.differences()


def _listed_entries(manifest: Iterable[ManifestEntry]) -> Iterator[_Listed]:
    for entry in manifest:
        if entry.path != "/":
            owner = (entry.uid, entry.gid)
            shape = _shape(entry.kind, owner, entry.mode, entry.size)
            yield _Listed(listed_path(entry.path), shape)


def _listed_files(files: Iterable[SnapshotFile]) -> Iterator[_Listed]:
    for count, file in enumerate(files):
        if count == MOST_FILES:
            raise EvidenceMissing(f"the snapshot lists more than {MOST_FILES} files")
        if file.kind != "socket":
            kind, owner = _KINDS.get(file.kind), (file.uid, file.gid)
            yield _Listed(file.path, _shape(kind, owner, file.mode, file.size))


def _shape(kind: EntryKind | None, owner: tuple[int, int], mode: int, size: int) -> _Shape:
    return _Shape(
        kind,
        owner,
        mode=None if kind is EntryKind.SYMLINK else mode,
        size=size if kind is EntryKind.FILE else None,
    )


def _side_by_side(
    wanted: Iterator[_Listed], seen: Iterator[_Listed]
) -> Iterator[tuple[_Listed | None, _Listed | None]]:
    """Both listings by path; ambiguous names as they come, from both sides at a time: their place
    in the order is not to be seen, but it is the same on both sides where these agree.
    """
    left, right = next(wanted, None), next(seen, None)
    while left is not None or right is not None:
        order = _order(left, right)
        yield (left if order <= 0 else None), (right if order >= 0 else None)
        if order <= 0:
            left = next(wanted, None)
        if order >= 0:
            right = next(seen, None)


def _order(left: _Listed | None, right: _Listed | None) -> int:
    """Below 0: left is to be taken; above: right; 0: both."""
    if left is None or right is None:
        return -1 if right is None else 1
    if left.path == right.path:
        return 0
    ambiguous = is_ambiguous(left.path), is_ambiguous(right.path)
    if any(ambiguous):
        return ambiguous[1] - ambiguous[0]
    return 1 if tree_order(left.path) > tree_order(right.path) else -1


class _Unmatched:
    """Ambiguous names that only one side has shown so far: how often, below 0 for the snapshot."""

    def __init__(self) -> None:
        self._balance: Counter[_Listed] = Counter()

    def take(self, wanted: _Listed | None, seen: _Listed | None) -> None:
        for listed, one in ((wanted, 1), (seen, -1)):
            if listed is not None:
                self._balance[listed] += one
                if not self._balance[listed]:
                    del self._balance[listed]
        if len(self._balance) > MOST_UNMATCHED:
            raise EvidenceMissing(
                f"more than {MOST_UNMATCHED} names that are not UTF-8 differ from the manifest"
            )

    def differences(self) -> Iterator[str]:
        by_path: defaultdict[str, list[tuple[_Shape, int]]] = defaultdict(list)
        for listed, count in self._balance.items():
            by_path[listed.path].append((listed.shape, count))
        for path, shapes in by_path.items():
            wanted = (shape for shape, count in shapes for _ in range(count))
            seen = (shape for shape, count in shapes for _ in range(-count))
            for one, other in zip_longest(wanted, seen):
                yield from _differences(path, one, other)


def _differences(path: str, wanted: _Shape | None, seen: _Shape | None) -> Iterator[str]:
    if seen is None:
        yield f"{path!r} is not in the snapshot"
    elif wanted is None:
        yield f"{path!r} is in the snapshot, but not in the manifest"
    elif wanted.kind is not seen.kind:
        yield f"{path!r}: the kind differs from the manifest"
    else:
        for name, one, other in zip(_Shape._fields, wanted, seen, strict=True):
            if one != other:
                yield f"{path!r}: the {name} differs from the manifest"


def files_to_read(manifest: Iterable[ManifestEntry], seed: str, count: int) -> list[ManifestEntry]:
    """Whose content is compared: a few that every restore needs, and others by chance. The seed
    makes the choice repeatable, and another one for the next snapshot.
    """
    lots = random.Random(seed)  # noqa: S311
    needed: list[ManifestEntry] = []
    others = nsmallest(count, _others(manifest, needed), key=lambda _entry: lots.random())
    return needed + others[: max(0, count - len(needed))]


def _others(
    manifest: Iterable[ManifestEntry], needed: list[ManifestEntry]
) -> Iterator[ManifestEntry]:
    """The files that can be read whole, but those that are needed: these go to their list."""
    for entry in manifest:
        if entry.kind is not EntryKind.FILE or not 0 < entry.size <= _LARGEST_SAMPLE:
            continue
        if entry.path in _ALWAYS_READ:
            needed.append(entry)
        else:
            yield entry


def content_differences(entries: Sequence[ManifestEntry], digests: Mapping[str, str]) -> list[str]:
    """Sentences for entries whose content as read (path to SHA-256) is not the manifest's."""
    return [
        f"the content of {entry.path!r} is not what the server had"
        for entry in entries
        if digests.get(entry.path) != entry.sha256
    ]
