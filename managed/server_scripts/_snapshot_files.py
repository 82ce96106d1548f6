"""Files read back from a snapshot, as a restore would bring them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from managed.domain.manifests import EntryKind, ManifestEntry, from_snapshot
from managed.server_scripts._backup_manifest import Seen, listed_entry
from managed.server_scripts._files import Excludes, TreeScan, bytes_of, sha256_of
from managed.server_scripts._hashing import sha256
from managed.server_scripts._restic import Restic
from managed.server_scripts._run import ScriptFailed, say

ARGUMENTS_SIZE = 100_000


class SnapshotFiles:
    """One snapshot, and an empty place on disk where parts of it may be laid out for a moment."""

    def __init__(self, restic: Restic, snapshot: str, place: Path) -> None:
        self.restic = restic
        self.snapshot = snapshot
        self.place = place

    def entries(self, moved: list[Seen]) -> list[ManifestEntry]:
        """What the snapshot holds for these paths (in tree order, as the result is).

        Directories come from restic's listing. Everything else is restored aside, with all its
        attributes, in few restic runs, since each opens the repository anew; files that don't
        fit into half of the free space are read as a stream instead, their attributes listed.
        """
        directories = [seen for seen in moved if _kind(seen) is EntryKind.DIRECTORY]
        others = [seen for seen in moved if _kind(seen) is not EntryKind.DIRECTORY]
        small, large = self._split_by_space(others)
        if moved:
            say(f"reading {len(others)} changed files back from the snapshot")
        found = {entry.path: entry for entry in map(listed_entry, directories)}
        for seen in large:
            found[seen.path] = listed_entry(seen, self._streamed_hash(seen.path))
        for batch in _batches([seen.path for seen in small]):
            found.update(self._restored_aside(batch))
        missing = [seen.path for seen in moved if seen.path not in found]
        if missing:
            raise ScriptFailed(
                f"{len(missing)} files can't be read back from the snapshot: {missing[:5]!r}",
                "evidence-missing",
            )
        return [found[seen.path] for seen in moved]

    def _split_by_space(self, moved: list[Seen]) -> tuple[list[Seen], list[Seen]]:
        space = shutil.disk_usage(self.place.parent).free // 2
        small: list[Seen] = []
        large: list[Seen] = []
        for seen in sorted(moved, key=lambda item: item.node.size if item.node else 0):
            space -= seen.node.size if seen.node else 0
            (small if space >= 0 else large).append(seen)
        return small, large

    def _streamed_hash(self, path: str) -> str:
        digest = sha256()
        for part in self.restic.lines("dump", self.snapshot, path):
            digest.update(part)
        return str(digest.hexdigest())

    def _restored_aside(self, paths: list[str]) -> dict[str, ManifestEntry]:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(mode=0o700)
        wanted = set(paths)
        words = ["restore", self.snapshot, "--target", str(self.place)]
        words += [f"--include={literal_pattern(path)}" for path in paths]
        status, _ = self.restic.follow(words, "read_back_progress")
        if status:
            raise ScriptFailed("changed files can't be read back from the snapshot")
        nothing = Excludes(())
        scan = TreeScan(bytes(self.place), ["/"], nothing, lambda path, _: sha256_of(path))
        entries = (scanned.entry for scanned in scan.files())
        return {e.path: from_snapshot(e) for e in entries if e.path in wanted}


def _kind(seen: Seen) -> EntryKind | None:
    return seen.node.kind if seen.node else None


def literal_pattern(path: str) -> str:
    """A restic pattern that matches this path alone."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", path)


def _batches(paths: list[str]) -> Iterator[list[str]]:
    """Groups of paths that fit on a command line. Hard links stay together as far as they are
    neighbours in the list.
    """
    batch: list[str] = []
    size = 0
    for path in paths:
        if batch and size + len(bytes_of(path)) > ARGUMENTS_SIZE:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += len(bytes_of(path)) + 20
    if batch:
        yield batch
