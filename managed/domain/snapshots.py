"""Repositories and snapshots: restic's words, with restic's meaning."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from managed.domain.errors import EvidenceMissing, Json
from managed.domain.secrets import Secret

REPOSITORIES: Final = "repositories/"
"""Below it each server's repository is in the folder of its account."""

MANIFESTS: Final = "manifests/"
"""Below it the manifests are kept: by the server's account, then by the snapshot's id."""

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
class KeptObject:
    """An object that we have put into the bucket, and the SHA-256 of what it has to hold."""

    key: str
    sha256: str


@dataclass(frozen=True)
class SnapshotRecord:
    """A backup in the catalogue: its manifest and its disk layout in the bucket, and what verified
    it (None: nobody has, so it counts as no backup). `health` is what check_health.py saw before
    it was taken (None: nothing). With `paths` it is a safety snapshot, of these alone, taken before
    they were restored in place: no backup of the server.
    """

    snapshot_id: str
    server_id: str
    job_id: str
    time: datetime
    files: int
    size: int
    manifest: KeptObject
    layout: KeptObject
    verified_at: datetime | None = None
    verification: Mapping[str, Json] | None = None
    health: Mapping[str, Json] | None = None
    paths: tuple[str, ...] = ()


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


def kept_manifest(account: str, snapshot_id: str, content: bytes) -> KeptObject:
    """Where a backup's manifest is kept. What it holds is part of the key: whatever a server
    claims later, no manifest is ever overwritten by another one.
    """
    digest = hashlib.sha256(content).hexdigest()
    return KeptObject(f"{MANIFESTS}{account}/{snapshot_id}/{digest}.jsonl.gz", digest)


def kept_layout(account: str, snapshot_id: str, content: bytes) -> KeptObject:
    """Where a backup's disk layout is kept; never overwritten either."""
    digest = hashlib.sha256(content).hexdigest()
    return KeptObject(f"layouts/{account}/{snapshot_id}/{digest}.json", digest)


def job_tag(job_id: str) -> str:
    """The tag that a job's snapshots get."""
    return f"job:{job_id}"


def snapshots_before(
    found: Iterable[Snapshot], records: Iterable[SnapshotRecord]
) -> tuple[str, ...]:
    """The snapshots that are there and not in the catalogue, such as those of failed backups."""
    known = {record.snapshot_id for record in records}
    return tuple(sorted({snapshot.snapshot_id for snapshot in found} - known))


def claim_refusal(
    snapshot_id: str,
    job_id: str,
    found: Iterable[Snapshot],
    before: Collection[str],
    records: Iterable[SnapshotRecord],
) -> str | None:
    """Why the snapshot that a server claims to have made for this job is none; None when it is.

    `found` is what the repository holds now, `before` what `snapshots_before` said before the
    server was let in, `records` its catalogue. A snapshot's tags and time are written by the
    server: they can show a mistake, but of a lie only the bucket tells, where it was absent before.
    """
    snapshot = next((one for one in found if one.snapshot_id == snapshot_id), None)
    if snapshot is None:
        return "is not in the repository"
    other = next((record for record in records if record.snapshot_id == snapshot_id), None)
    if other is not None and other.job_id != job_id:
        return f"was made by job {other.job_id}"
    if snapshot_id in before:
        return "was there before this job's backup began"
    if job_tag(job_id) not in snapshot.tags:
        return "does not bear this job's tag"
    return None


def snapshot_to_restore(
    records: Sequence[SnapshotRecord], as_of: datetime | None
) -> SnapshotRecord | None:
    """The newest verified backup of the whole server, not newer than `as_of` if that is given."""
    usable = [
        record
        for record in records
        if record.verified_at is not None
        and not record.paths
        and (as_of is None or record.time <= as_of)
    ]
    return max(usable, key=lambda record: record.time, default=None)
