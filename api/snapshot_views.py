"""Answers about what is in a backup."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from pydantic import Field

from api.views import View, shown_as
from managed.domain.manifests import ManifestEntry, is_ambiguous, listed_path

_NANOSECONDS: Final = 1_000_000_000
_LAST_SECOND: Final = 253_402_300_799

SNAPSHOT_PATH: Final = {
    "path": "/etc/nginx",
    "is_exact": True,
    "kind": "directory",
    "size": 0,
    "mode": "0755",
    "uid": 0,
    "gid": 0,
    "modified_at": "2026-11-20T09:31:12Z",
    "target": "",
}


class SnapshotPathView(View):
    """One file or folder of a backup. A name that is not UTF-8 is shown with U+FFFD for every odd
    byte; it cannot be asked for by itself, but comes back with its folder.
    """

    model_config = shown_as(SNAPSHOT_PATH)
    path: str
    is_exact: bool
    kind: str
    size: int = Field(description="Bytes; 0 for all but files.")
    mode: str = Field(description="Octal, with setuid, setgid and sticky.")
    uid: int
    gid: int
    modified_at: datetime | None = Field(description="null for a time that no calendar has.")
    target: str = Field(description="Where a symlink leads; empty for all else.")

    @classmethod
    def of(cls, entry: ManifestEntry) -> SnapshotPathView:
        return cls(
            path=listed_path(entry.path),
            is_exact=not is_ambiguous(entry.path),
            kind=entry.kind.value,
            size=entry.size,
            mode=f"{entry.mode:04o}",
            uid=entry.uid,
            gid=entry.gid,
            modified_at=_moment(entry.mtime_ns),
            target=listed_path(entry.target),
        )


def _moment(nanoseconds: int) -> datetime | None:
    seconds = nanoseconds // _NANOSECONDS
    return datetime.fromtimestamp(seconds, UTC) if 0 <= seconds <= _LAST_SECOND else None
