"""Repositories and snapshots: restic's words, with restic's meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from managed.domain.errors import EvidenceMissing, Json
from managed.domain.secrets import Secret

_SNAPSHOT_ID: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST_COUNT: Final = 2**63 - 1


@dataclass(frozen=True)
class RepositoryAddress:
    """One server's repository: `account` is its name at the gateway and its folder in the bucket
    (`repositories/<account>/…`), `password` opens it, `key_id` (may be empty) is the name of the
    key file that the provider made and trusts.
    """

    account: str
    password: Secret
    key_id: str = ""


@dataclass(frozen=True)
class Snapshot:
    """`paths` are its roots; `tags` carry our marks ("job:<id>"). Sizes in bytes."""

    snapshot_id: str
    time: datetime
    hostname: str
    paths: tuple[str, ...]
    tags: tuple[str, ...]
    files: int
    size: int


@dataclass(frozen=True)
class SnapshotFile:
    """One node of a snapshot. `mode` holds permission bits only; `kind` is restic's type (file,
    dir, symlink, dev, chardev, fifo, socket).
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: str
    inode: int = 0
    links: int = 0


@dataclass(frozen=True)
class Check:
    """What `restic check` found; `errors` is empty when all that was read is sound."""

    part: int
    parts: int
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        return not self.errors

    def as_json(self) -> dict[str, Json]:
        return {
            "part": self.part,
            "parts": self.parts,
            "errors": list(self.errors),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class SnapshotRecord:
    """A backup in the catalogue: where its manifest and disk layout lie in the bucket, and what
    verified it (None: nobody has, so it counts as no backup). `health` is what check_health.py saw
    before it was taken (None: nothing).
    """

    snapshot_id: str
    server_id: str
    job_id: str
    time: datetime
    files: int
    size: int
    manifest_key: str
    layout_key: str
    verified_at: datetime | None = None
    verification: Mapping[str, Json] | None = None
    health: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class BackupClaim:
    """What the server says of a backup that it has made: well-formed, not yet proven."""

    snapshot_id: str
    files: int
    size: int


def backup_claim(document: Mapping[str, Json]) -> BackupClaim:
    """Read take_backup.py's result. Its values become names of objects and numbers in the
    catalogue, and whoever is root there may have written them: EvidenceMissing for odd ones.
    """
    snapshot_id = document.get("snapshot_id")
    if not isinstance(snapshot_id, str) or not _SNAPSHOT_ID.fullmatch(snapshot_id):
        raise EvidenceMissing("the backup's result names no snapshot")
    return BackupClaim(snapshot_id, _count(document, "files"), _count(document, "bytes"))


def _count(document: Mapping[str, Json], name: str) -> int:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_COUNT:
        raise EvidenceMissing(f"the backup's result gives no number of {name}")
    return value


def account_of(server_id: str) -> str:
    """The server's name at the gateway, and its repository's folder in the bucket."""
    return f"srv-{server_id}"


def manifest_key(account: str, snapshot_id: str) -> str:
    return f"manifests/{account}/{snapshot_id}.jsonl.gz"


def layout_key(account: str, snapshot_id: str) -> str:
    return f"layouts/{account}/{snapshot_id}.json"


def snapshot_to_restore(
    records: Sequence[SnapshotRecord], as_of: datetime | None
) -> SnapshotRecord | None:
    """The newest verified backup, not newer than `as_of` if that is given."""
    usable = [
        record
        for record in records
        if record.verified_at is not None and (as_of is None or record.time <= as_of)
    ]
    return max(usable, key=lambda record: record.time, default=None)
