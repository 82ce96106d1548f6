"""Looking into a backup by its manifest, folder by folder."""

from __future__ import annotations

from collections.abc import Iterable

from managed.domain.errors import NotFound
from managed.domain.manifests import EntryKind, ManifestEntry, tree_order


def children(
    entries: Iterable[ManifestEntry], folder: str, after: str | None, most: int
) -> list[ManifestEntry]:
    """What lies directly in the folder, in tree order: at most so many, those behind the path
    `after`. NotFound when the backup holds no such folder.
    """
    found: list[ManifestEntry] = []
    is_there = False
    prefix = f"{folder.rstrip('/')}/"
    begin = tree_order(after) if after is not None else None
    for entry in entries:
        if entry.path == folder:
            is_there = entry.kind is EntryKind.DIRECTORY
        elif not entry.path.startswith(prefix):
            if is_there:
                break
        elif "/" not in entry.path[len(prefix) :] and _is_behind(entry.path, begin):
            found.append(entry)
            if len(found) == most:
                break
    if not is_there:
        raise NotFound(
            f"the snapshot holds no folder {folder!r}",
            hint="Look into the folder above it.",
            folder=folder,
        )
    return found


def _is_behind(path: str, begin: list[bytes] | None) -> bool:
    return begin is None or tree_order(path) > begin
