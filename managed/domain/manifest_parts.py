"""Parts of a manifest: some paths with all that is below them.

This module travels to servers inside scripts too: the standard library of Python 3.9 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from managed.domain.manifests import ManifestEntry


class PathSet:
    """Some absolute paths of a tree; each stands for itself and all below it."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)
        self._exact = frozenset(self.paths)
        self._prefixes = tuple(f"{path.rstrip('/')}/" for path in self.paths)
        self._above = frozenset(above for path in self.paths for above in directories_above(path))

    def covers(self, path: str) -> bool:
        """Is it one of the paths, or below one?"""
        return path in self._exact or path.startswith(self._prefixes)

    def leads_to(self, path: str) -> bool:
        """Is it a directory above one of the paths, and not covered itself?"""
        return path in self._above and not self.covers(path)


def directories_above(path: str) -> list[str]:
    """The directories that lead to an absolute path, "/" first."""
    parts = path.strip("/").split("/")[:-1]
    return ["/", *("/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1))]


def part_of(entries: Iterable[ManifestEntry], wanted: PathSet) -> Iterator[ManifestEntry]:
    """The entries that `wanted` covers and the directories that lead to them, in the same order. Of
    a file with several names the first one *here* is the one that the others are linked to, as a
    restore of this part alone links them.
    """
    first_names: dict[str, str] = {}
    for entry in entries:
        if not wanted.covers(entry.path):
            if wanted.leads_to(entry.path):
                yield entry
        elif entry.hard_link and not wanted.covers(entry.hard_link):
            first = first_names.setdefault(entry.hard_link, entry.path)
            yield replace(entry, hard_link="" if first == entry.path else first)
        else:
            yield entry
