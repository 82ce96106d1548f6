"""Repositories and snapshots: restic's words, with restic's meaning."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from managed.domain.errors import Json
from managed.domain.secrets import Secret


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
