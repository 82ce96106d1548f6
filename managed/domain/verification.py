"""Does a snapshot hold what its manifest says? Decisions on what was read from the bucket."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from managed.domain.manifests import EntryKind, ManifestEntry
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


def snapshot_differences(
    manifest: Iterable[ManifestEntry], files: Sequence[SnapshotFile]
) -> list[str]:
    """Sentences for every path that one has and the other has not, or that differs in kind,
    owner, mode or size. Sockets are nobody's, and restic keeps nothing of / itself.
    """
    found = {file.path: file for file in files if file.kind != "socket"}
    problems = []
    for entry in manifest:
        if entry.path == "/":
            continue
        file = found.pop(entry.path, None)
        if file is None:
            problems.append(f"{entry.path!r} is not in the snapshot")
        else:
            problems += _differences(entry, file)
    problems += [f"{path!r} is in the snapshot, but not in the manifest" for path in found]
    return problems


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


def _differences(entry: ManifestEntry, file: SnapshotFile) -> list[str]:
    pairs: dict[str, tuple[object, object]] = {
        "kind": (entry.kind, _KINDS.get(file.kind)),
        "owner": ((entry.uid, entry.gid), (file.uid, file.gid)),
    }
    if entry.kind is not EntryKind.SYMLINK:
        pairs["mode"] = (entry.mode, file.mode)
    if entry.kind is EntryKind.FILE:
        pairs["size"] = (entry.size, file.size)
    return [
        f"{entry.path!r}: the {name} differs from the manifest"
        for name, (wanted, seen) in pairs.items()
        if wanted != seen
    ]
