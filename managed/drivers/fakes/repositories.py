"""BackupRepositories in memory: snapshots are dictionaries, strays are names."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePosixPath

from managed.domain.errors import (
    EvidenceMissing,
    InvalidInput,
    NoBackup,
    NotFound,
    RepositoryDamaged,
)
from managed.domain.manifests import listed_path, tree_order
from managed.domain.secrets import Secret
from managed.domain.snapshots import Check, RepositoryAddress, Snapshot, SnapshotFile
from managed.ports import Emit, RegisterChild


@dataclass
class FakeRepository:
    """`strays` were planted: until they are quarantined the repository cannot be worked with.
    `errors` and `warnings` are what a check finds.
    """

    password: Secret
    key_id: str
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    content: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    strays: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class FakeRepositories:
    repositories: dict[str, FakeRepository] = field(default_factory=dict)

    def add_snapshot(
        self,
        account: str,
        time: datetime,
        content: Mapping[str, bytes],
        *,
        paths: Sequence[str] = ("/",),
        tags: Sequence[str] = (),
    ) -> str:
        """What a backup from the server would have made; returns its id."""
        repository = self.repositories[account]
        number = len(repository.snapshots)
        snapshot = Snapshot(
            snapshot_id=hashlib.sha256(f"{account} {number}".encode()).hexdigest(),
            time=time,
            hostname=account,
            paths=tuple(paths),
            tags=tuple(tags),
            files=len(content),
            size=sum(map(len, content.values())),
        )
        repository.snapshots[snapshot.snapshot_id] = snapshot
        repository.content[snapshot.snapshot_id] = dict(content)
        return snapshot.snapshot_id

    def create(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> str:
        if repository.account not in self.repositories:
            _begin(register_child)
            key_id = hashlib.sha256(repository.account.encode()).hexdigest()
            self.repositories[repository.account] = FakeRepository(repository.password, key_id)
        return self._existing(replace(repository, key_id="")).key_id

    def snapshots(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> Sequence[Snapshot]:
        found = self._usable(repository).snapshots.values()
        _begin(register_child)
        return sorted(found, key=lambda snapshot: snapshot.time)

    @contextmanager
    def files(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        register_child: RegisterChild | None = None,
    ) -> Iterator[Iterator[SnapshotFile]]:
        content = self._content(repository, snapshot_id)
        time = self._usable(repository).snapshots[snapshot_id].time.isoformat()
        _begin(register_child)
        parents = {str(parent) for path in content for parent in PurePosixPath(path).parents}
        listed = {path: SnapshotFile(path, "dir", 0o755, 0, 0, 0, time) for path in parents - {"/"}}
        for path, data in content.items():
            listed[path] = SnapshotFile(path, "file", 0o644, 0, 0, len(data), time)
        in_order = (listed[path] for path in sorted(listed, key=tree_order))
        yield (replace(file, path=listed_path(file.path)) for file in in_order)

    def file_digest(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        path: str,
        largest: int,
        register_child: RegisterChild | None = None,
    ) -> str:
        content = self._content(repository, snapshot_id).get(path)
        _begin(register_child)
        if content is None:
            raise NotFound(f"the snapshot does not hold {path}", path=path)
        if len(content) > largest:
            raise EvidenceMissing(f"{path!r} has more than {largest} bytes", path=path)
        return hashlib.sha256(content).hexdigest()

    @contextmanager
    def content(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        path: str,
        register_child: RegisterChild | None = None,
    ) -> Iterator[Iterator[bytes]]:
        files = self._content(repository, snapshot_id)
        _begin(register_child)
        yield _streamed(files, path)

    def check(
        self,
        repository: RepositoryAddress,
        part: int,
        parts: int,
        emit: Emit,
        register_child: RegisterChild | None = None,
    ) -> Check:
        if not 1 <= part <= parts:
            raise InvalidInput(f"there is no part {part} of {parts}")
        found = self._existing(repository)
        _begin(register_child)
        emit("repository_check_started", {"part": part, "parts": parts})
        errors = (*found.errors, *(f"cannot load {name}" for name in sorted(found.strays)))
        return Check(part, parts, errors, tuple(found.warnings))

    def quarantine(self, repository: RepositoryAddress) -> Sequence[str]:
        found = self._existing(repository)
        moved = sorted(found.strays)
        found.strays.clear()
        return moved

    def unlock(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> None:
        self._existing(repository)
        _begin(register_child)

    def _existing(self, repository: RepositoryAddress) -> FakeRepository:
        found = self.repositories.get(repository.account)
        if found is None:
            raise NoBackup(
                f"{repository.account} has no backup repository", account=repository.account
            )
        if found.password != repository.password or repository.key_id not in ("", found.key_id):
            raise RepositoryDamaged(
                f"the stored password does not open the repository of {repository.account}"
            )
        return found

    def _usable(self, repository: RepositoryAddress) -> FakeRepository:
        found = self._existing(repository)
        if found.strays:
            raise RepositoryDamaged(
                f"objects in the repository of {repository.account} do not decrypt"
            )
        return found

    def _content(self, repository: RepositoryAddress, snapshot_id: str) -> Mapping[str, bytes]:
        try:
            return self._usable(repository).content[snapshot_id]
        except KeyError:
            raise NotFound(f"there is no snapshot {snapshot_id}") from None


def _streamed(files: Mapping[str, bytes], path: str) -> Iterator[bytes]:
    if path in files:
        yield files[path]
        return
    below = {name: data for name, data in files.items() if name.startswith(f"{path}/")}
    if not below:
        raise NotFound(f"the snapshot does not hold {path}", path=path)
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, data in sorted(below.items()):
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    yield written.getvalue()


def _begin(register_child: RegisterChild | None) -> None:
    """Work as a process of its own would."""
    if register_child is not None:
        register_child(os.getpgid(0))
