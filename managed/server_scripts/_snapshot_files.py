"""Files read back from a snapshot, as a restore would bring them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from managed.domain.manifests import EntryKind, ManifestEntry, from_snapshot, listed_path
from managed.server_scripts._backup_manifest import Seen, listed_entry
from managed.server_scripts._files import Excludes, HashOnce, TreeScan, bytes_of
from managed.server_scripts._hashing import sha256
from managed.server_scripts._restic import Restic
from managed.server_scripts._run import ScriptFailed, say

ARGUMENTS_SIZE = 100_000

Links = dict[tuple[str, int], tuple[int, int]]
"""Listed path and inode to what restic links by: device and number of names."""


class SnapshotFiles:
    """One snapshot, and an empty place on disk where parts of it may be laid out for a moment."""

    def __init__(self, restic: Restic, snapshot: str, place: Path) -> None:
        self.restic = restic
        self.snapshot = snapshot
        self.place = place

    def entries(self, moved: list[Seen]) -> list[ManifestEntry]:
        """What the snapshot holds for these paths (in tree order, as the result is).

        Directories come from restic's listing. Everything else is restored aside by one run of
        restic, so with all its attributes and hard links; files that don't fit into half of the
        free space are read as a stream instead, their attributes listed.
        """
        directories = [seen for seen in moved if _kind(seen) is EntryKind.DIRECTORY]
        others = [seen for seen in moved if _kind(seen) is not EntryKind.DIRECTORY]
        small, large = split_by_space(others, shutil.disk_usage(self.place.parent).free // 2)
        if moved:
            say(f"reading {len(others)} changed files back from the snapshot")
        found = {entry.path: entry for entry in map(listed_entry, directories)}
        found.update((entry.path, entry) for entry in self._streamed(large))
        found.update(self._restored_aside([seen.path for seen in small]))
        missing = [seen.path for seen in moved if seen.path not in found]
        if missing:
            raise ScriptFailed(
                f"{len(missing)} files can't be read back from the snapshot: {missing[:5]!r}",
                "evidence-missing",
            )
        return [found[seen.path] for seen in moved]

    def _restored_aside(self, paths: list[str]) -> Iterator[tuple[str, ManifestEntry]]:
        if not paths:
            return
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(mode=0o700)
        tree, patterns = self.place / "tree", self.place / "patterns"
        tree.mkdir()
        patterns.write_bytes(b"".join(bytes_of(line_pattern(path)) + b"\n" for path in paths))
        words = ["restore", self.snapshot, "--target", str(tree), "--include-file", str(patterns)]
        status, _ = self.restic.follow(words, "read_back_progress")
        if status:
            raise ScriptFailed("changed files can't be read back from the snapshot")
        wanted = set(paths)
        for scanned in TreeScan(bytes(tree), ["/"], Excludes(()), HashOnce()).files():
            if scanned.entry.path in wanted:
                yield scanned.entry.path, from_snapshot(scanned.entry)

    def _streamed(self, large: list[Seen]) -> Iterator[ManifestEntry]:
        """Of names that a restore links, restic writes the first one's content, and then the
        attributes of one after the other.
        """
        shared = [seen for names in by_inode(large) if len(names) > 1 for seen in names]
        for names in linked_names(large, self._links([seen.path for seen in shared])):
            first, entry = names[0], listed_entry(names[-1], self._streamed_hash(names[0].path))
            size = first.node.size if first.node else 0
            for seen in names:
                link = "" if seen is first else first.path
                yield replace(entry, path=seen.path, size=size, hard_link=link)

    def _links(self, paths: list[str]) -> Links:
        found: Links = {}
        for batch in _batches(list(map(literal_pattern, paths))):
            lines = self.restic.lines("find", "--json", "--snapshot", self.snapshot, *batch)
            for document in json.loads(b"".join(lines)):
                for match in document.get("matches", ()):
                    path, inode = match["path"], match.get("inode", 0)
                    found[path, inode] = match.get("device_id", 0), match.get("links", 1)
        return found

    def _streamed_hash(self, path: str) -> str:
        digest = sha256()
        for part in self.restic.lines("dump", self.snapshot, path):
            digest.update(part)
        return str(digest.hexdigest())


def _kind(seen: Seen) -> EntryKind | None:
    return seen.node.kind if seen.node else None


def by_inode(moved: Iterable[Seen]) -> Iterator[list[Seen]]:
    """Together what may be names of one file: restic read them from one inode number."""
    found: dict[object, list[Seen]] = {}
    for seen in moved:
        inode = seen.node.inode if seen.node else 0
        found.setdefault(inode or seen.path, []).append(seen)
    yield from found.values()


def split_by_space(moved: list[Seen], space: int) -> tuple[list[Seen], list[Seen]]:
    """What fits into so many bytes, smallest first, and the rest, both in the given order. Names of
    one inode stay together: only what is restored by one run can be linked in it.
    """

    def size_of(names: list[Seen]) -> int:
        return sum(seen.node.size for seen in names if seen.node)

    small: set[str] = set()
    for names in sorted(by_inode(moved), key=size_of):
        space -= size_of(names)
        if space >= 0:
            small.update(seen.path for seen in names)
    return (
        [seen for seen in moved if seen.path in small],
        [seen for seen in moved if seen.path not in small],
    )


def linked_names(moved: list[Seen], links: Links) -> Iterator[list[Seen]]:
    """The names of each file, as a restore would link them: those that restic read from the same
    inode while it had several. Without an entry in `links`, a path is a file of its own.
    """
    found: dict[object, list[Seen]] = {}
    for seen in moved:
        inode = seen.node.inode if seen.node else 0
        device, count = links.get((listed_path(seen.path), inode), (0, 1))
        found.setdefault((device, inode) if count > 1 else seen.path, []).append(seen)
    yield from found.values()


def literal_pattern(path: str) -> str:
    """A restic pattern that matches this path alone."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", path)


def line_pattern(path: str) -> str:
    """The same as a line of a pattern file. No line holds a line's end: "?" stands for it, and may
    match more.
    """
    line = literal_pattern(path).replace("$", "$$").replace("\n", "?")
    return re.sub(r"(\s)\Z", r"[\1]", line)


def _batches(words: list[str]) -> Iterator[list[str]]:
    """Groups of words that fit on a command line."""
    batch: list[str] = []
    size = 0
    for word in words:
        if batch and size + len(bytes_of(word)) > ARGUMENTS_SIZE:
            yield batch
            batch, size = [], 0
        batch.append(word)
        size += len(bytes_of(word)) + 20
    if batch:
        yield batch
