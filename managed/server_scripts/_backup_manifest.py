"""The manifest of a backup: equal to what the snapshot holds, and still independent of it.

Files are read twice around the backup. Pass 1, before, reads everything with sha256. Pass 2,
after, only looks at inodes. A file whose inode did not change between the two passes was the same
while restic read it in between, so what pass 1 read from the server is what restic should have
stored: these entries prove the backup without trusting it. A file that did change (logs, the
journal, a database's files) has no one true content on the server, so its entry is read back
from the snapshot and says so. Every path is also compared with restic's own listing.
"""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from managed.domain.manifests import (
    EntryKind,
    EntrySource,
    ManifestEntry,
    is_ambiguous,
    listed_path,
    merged_by_path,
    parsed_entry,
)
from managed.server_scripts._files import ScannedFile, signature

RESTIC_KINDS = {
    "file": EntryKind.FILE,
    "dir": EntryKind.DIRECTORY,
    "symlink": EntryKind.SYMLINK,
    "fifo": EntryKind.FIFO,
    "chardev": EntryKind.CHARACTER_DEVICE,
    "dev": EntryKind.BLOCK_DEVICE,
}
SHOWN_PROBLEMS = 3
GO_SETUID, GO_SETGID, GO_STICKY = 1 << 23, 1 << 22, 1 << 20


class Recorded(NamedTuple):
    """A file as pass 1 saw it."""

    signature: list[int]
    entry: ManifestEntry


class Node(NamedTuple):
    """A file as restic lists it, its path as `listed_path` says; `inode` is 0 when unknown."""

    path: str
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    inode: int = 0


class Seen(NamedTuple):
    """One path with what is known of it; None: not seen there."""

    path: str
    first: Recorded | None
    second: ScannedFile | None
    node: Node | None


def recorded_line(line: str) -> Recorded:
    """A line of pass 1's own file: the inode's signature, a tab, the entry."""
    inode, _, entry = line.partition("\t")
    return Recorded(json.loads(inode), parsed_entry(entry))


def parsed_node(document: dict[str, Any]) -> Node | None:
    """One line of `restic ls --json`; None for the snapshot's own line and for sockets."""
    kind = RESTIC_KINDS.get(document.get("type", ""))
    if kind is None or "path" not in document:
        return None
    return Node(
        path=document["path"],
        kind=kind,
        mode=unix_mode(document.get("mode", 0)),
        uid=document.get("uid", 0),
        gid=document.get("gid", 0),
        size=document.get("size", 0) if kind is EntryKind.FILE else 0,
        mtime_ns=nanoseconds(document["mtime"]),
        inode=document.get("inode", 0),
    )


def unix_mode(go_mode: int) -> int:
    """Permission bits as stat has them, from Go's file mode."""
    special = (GO_SETUID, 0o4000), (GO_SETGID, 0o2000), (GO_STICKY, 0o1000)
    return go_mode & 0o777 | sum(bit for go_bit, bit in special if go_mode & go_bit)


_TIME = re.compile(r"(-?\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


def nanoseconds(text: str) -> int:
    """An RFC 3339 time with up to nine digits behind the point, in nanoseconds since 1970."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time")
    fields = [int(found.group(number)) for number in range(1, 7)]
    seconds = calendar.timegm((*fields, 0, 0, 0))
    zone = found.group(8)
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * 1_000_000_000 + int((found.group(7) or "").ljust(9, "0"))


def seen_paths(
    first: Iterable[Recorded], second: Iterable[ScannedFile], nodes: Iterable[Node]
) -> Iterator[Seen]:
    """All three listings side by side, in tree order, but ambiguous paths at the very end."""
    ambiguous_nodes: dict[str, list[Node]] = {}
    ambiguous: list[Seen] = []
    server = _joined(
        (Seen(recorded.entry.path, recorded, None, None) for recorded in first),
        (Seen(scanned.entry.path, None, scanned, None) for scanned in second),
    )
    yield from _joined(
        _without_ambiguous(server, ambiguous),
        (Seen(n.path, None, None, n) for n in _clear_nodes(nodes, ambiguous_nodes)),
    )
    yield from _matched(ambiguous, ambiguous_nodes)


def _joined(left: Iterable[Seen], right: Iterable[Seen]) -> Iterator[Seen]:
    for a, b in merged_by_path(left, right, lambda seen: seen.path):
        if a is None or b is None:
            yield from (seen for seen in (a, b) if seen is not None)
        else:
            yield Seen(a.path, a.first or b.first, a.second or b.second, a.node or b.node)


def _without_ambiguous(seen: Iterable[Seen], aside: list[Seen]) -> Iterator[Seen]:
    for item in seen:
        if is_ambiguous(item.path):
            aside.append(item)
        else:
            yield item


def _clear_nodes(nodes: Iterable[Node], aside: dict[str, list[Node]]) -> Iterator[Node]:
    for node in nodes:
        if is_ambiguous(node.path):
            aside.setdefault(node.path, []).append(node)
        else:
            yield node


def _matched(ambiguous: list[Seen], nodes: dict[str, list[Node]]) -> Iterator[Seen]:
    """Give each ambiguous path the node that fits it best among those that look like it."""
    for seen in ambiguous:
        candidates = nodes.get(listed_path(seen.path), [])
        entry = seen.first.entry if seen.first else seen.second.entry if seen.second else None
        fitting = [node for node in candidates if entry is not None and agrees(entry, node)]
        node = next(iter(fitting or candidates), None)
        if node is not None:
            candidates.remove(node)
        yield seen._replace(node=node)
    for left in nodes.values():
        yield from (Seen(node.path, None, None, node) for node in left)


def agrees(entry: ManifestEntry, node: Node) -> bool:
    """Whether restic stored what the entry says, as far as its listing tells."""
    return (
        entry.kind is node.kind
        and entry.mode == node.mode
        and entry.uid == node.uid
        and entry.gid == node.gid
        and entry.size == node.size
        and entry.mtime_ns == node.mtime_ns
    )


def is_stable(seen: Seen) -> bool:
    """Whether the file was the same before and after the backup."""
    if seen.first is None or seen.second is None:
        return False
    was_read = seen.first.entry.kind is not EntryKind.FILE or bool(seen.first.entry.sha256)
    return was_read and seen.first.signature == signature(seen.second.status)


def verdict(seen: Seen) -> str:
    """What the manifest says of a path: "server" (as pass 1 read it), "snapshot" (to be read back
    from there), "missing" (restic should have stored it and did not) or "gone" (in no snapshot).
    """
    if seen.path == "/":
        return "server"
    if seen.node is None:
        return "missing" if is_stable(seen) else "gone"
    if is_stable(seen) and seen.first is not None and agrees(seen.first.entry, seen.node):
        return "server"
    return "snapshot"


def incompleteness(problems: list[str]) -> dict[str, str]:
    """Why a snapshot that lacks something is no good backup, as the error of a result."""
    more = len(problems) - SHOWN_PROBLEMS
    return {
        "code": "evidence-missing",
        "detail": f"the snapshot is incomplete: {'; '.join(problems[:SHOWN_PROBLEMS])}"
        + (f" (and {more} more)" if more > 0 else ""),
    }


def listed_entry(seen: Seen, sha256: str = "") -> ManifestEntry:
    """An entry from restic's listing, which has no extended attributes: those of the server."""
    node = seen.node
    if node is None:
        raise ValueError(f"{seen.path!r} is not in the snapshot")
    known = seen.second.entry if seen.second else seen.first.entry if seen.first else None
    return ManifestEntry(
        path=seen.path,
        kind=node.kind,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        size=node.size,
        sha256=sha256,
        xattrs=known.xattrs if known else (),
        source=EntrySource.SNAPSHOT,
    )
