"""Repositories as the provider sees them, the way in for servers, and the bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from managed.domain.secrets import Secret
from managed.domain.snapshots import (
    Check,
    RepositoryAddress,
    Snapshot,
    SnapshotFile,
)
from managed.ports.common import Emit, RegisterChild


class BackupRepositories(Protocol):
    """restic on the provider's side: directly on the bucket, never through the gateway.

    The process group that works for a method is given to its `register_child`, and dies with this
    process.
    """

    def create(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> str:
        """Make the repository with its first key; existing with this password is fine.

        Returns the key's id, to be kept as `key_id`. Call it before the server is let in at the
        gateway: the id is trusted because nobody else could have put a key there. RepositoryLocked
        while somebody else may still be making it.
        """
        ...

    def snapshots(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> Sequence[Snapshot]:
        """All snapshots, oldest first. NoBackup when the repository does not exist."""
        ...

    def files(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        register_child: RegisterChild | None = None,
    ) -> AbstractContextManager[Iterator[SnapshotFile]]:
        """Every path of a snapshot with its metadata, read as it is asked for: in tree order of
        the names' bytes, the paths as `manifests.listed_path` says. It may be left before its end.
        """
        ...

    def file_digest(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        path: str,
        largest: int,
        register_child: RegisterChild | None = None,
    ) -> str:
        """The SHA-256 (hexadecimal) of one file's content. NotFound when the snapshot does not
        hold it, EvidenceMissing as soon as it is seen to have more than `largest` bytes.
        """
        ...

    def content(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        path: str,
        register_child: RegisterChild | None = None,
    ) -> AbstractContextManager[Iterator[bytes]]:
        """A file's content, or a folder as a tar archive with whole paths in it, read as it is
        asked for. NotFound when the repository has no such snapshot, or where the content would
        begin when that does not hold the path; what goes wrong later is raised where it would end.
        """
        ...

    def check(
        self,
        repository: RepositoryAddress,
        part: int,
        parts: int,
        emit: Emit,
        register_child: RegisterChild | None = None,
    ) -> Check:
        """Check structure and the `part`-th (from 1) of `parts` equal parts of all data.

        What is wrong with the repository is in the answer, not raised.
        """
        ...

    def quarantine(self, repository: RepositoryAddress) -> Sequence[str]:
        """Move what does not belong (objects that do not decrypt with the repository's own key)
        out of the repository to the quarantine prefix; returns the names moved, sorted.

        To be called before the other methods whenever the server may be hostile, and while no
        backup of ours runs. NoBackup when the repository does not exist. No process works for it:
        it may be done by two at once.
        """
        ...

    def unlock(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> None:
        """Remove stale locks."""
        ...


class Gateway(Protocol):
    """The append-only way into the bucket that servers get."""

    def admit(self, account: str, password: Secret) -> None:
        """Let this account in to its own repository; replaces an earlier password."""
        ...

    def dismiss(self, account: str) -> None:
        """Let it in no more; unknown is fine."""
        ...

    def socket(self) -> str:
        """Path of the gateway's Unix socket here, to be forwarded. GatewayUnavailable if down."""
        ...


class ObjectStore(Protocol):
    """A bucket. Keys are relative to the bucket; content is bytes."""

    def put(self, key: str, content: bytes) -> None: ...

    def get(self, key: str) -> bytes:
        """NotFound when there is no such object."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Absent is fine."""
        ...

    def move(self, key: str, new_key: str) -> None:
        """Copy, then delete; NotFound when there is no such object."""
        ...

    def keys(self, prefix: str) -> Sequence[str]:
        """Every key that begins with the prefix, sorted."""
        ...

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """The same keys with their objects' sizes in bytes."""
        ...
