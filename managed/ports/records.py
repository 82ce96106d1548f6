"""What is on record: servers, their secrets, rescue sessions and backups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from managed.domain.errors import Json
from managed.domain.rescue import RescueSession
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.servers import Node, Server, ServerStatus
from managed.domain.snapshots import (
    SnapshotRecord,
)


class Servers(Protocol):
    """Servers and nodes as the database knows them."""

    def get(self, server_id: str) -> Server:
        """NotFound for unknown and deleted servers."""
        ...

    def node(self, node_id: str) -> Node: ...

    def set_status(self, server_id: str, status: ServerStatus, now: datetime) -> None:
        """From the first time that it is active on it is under management."""
        ...

    def pin_host_key(self, server_id: str, host_key: str, *, replacing: str) -> None:
        """Pin a key in place of `replacing` (empty: none yet). HostKeyChanged when another key
        is pinned than the two; pinning the same again is fine.
        """
        ...

    def set_repository_key(self, server_id: str, key_id: str) -> None: ...

    def repository_key(self, server_id: str) -> str:
        """The name of the provider's key in the server's repository; empty: no repository yet."""
        ...

    def part_to_check(self, server_id: str, parts: int) -> int:
        """Which part (1 to `parts`) of the repository's data is due."""
        ...

    def part_checked(self, server_id: str, part: int, parts: int) -> None:
        """That part is sound: the next one is due. Nothing changes if it was not the one due."""
        ...


class Vault(Protocol):
    """Secrets, sealed in the database. An owner is a server or a rescue session."""

    def keep(self, owner: str, purpose: SecretPurpose, secret: Secret) -> None:
        """Store or replace."""
        ...

    def keep_once(self, owner: str, purpose: SecretPurpose, secret: Secret) -> Secret:
        """Store unless there is one; returns the one that counts. For secrets made on demand."""
        ...

    def secret(self, owner: str, purpose: SecretPurpose) -> Secret:
        """NotFound when there is none; SecretUnreadable with a wrong master key."""
        ...

    def forget(self, owner: str) -> None:
        """Remove every secret of this owner; none is fine."""
        ...


class RescueSessions(Protocol):
    def open(self, session: RescueSession) -> RescueSession:
        """Record a session before it boots; the server's open one is returned if there is one."""
        ...

    def current(self, server_id: str) -> RescueSession | None: ...

    def keep_until(self, session_id: str, expires_at: datetime) -> None:
        """From now on it ends at that time, also when it was to end with its job."""
        ...

    def end(self, session_id: str, now: datetime) -> None:
        """Ended is fine."""
        ...


class Snapshots(Protocol):
    """The catalogue of backups. A backup is good when verified, not before."""

    def add(self, record: SnapshotRecord) -> None:
        """The same record again is fine; EvidenceMissing when the snapshot is on record as another
        job's, or with other evidence.
        """
        ...

    def mark_verified(
        self, snapshot_id: str, evidence: Mapping[str, Json], now: datetime
    ) -> None: ...

    def get(self, snapshot_id: str) -> SnapshotRecord: ...

    def of_server(self, server_id: str) -> Sequence[SnapshotRecord]:
        """Newest first."""
        ...
