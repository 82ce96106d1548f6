"""What every BackupRepositories port keeps: the fake, and restic on a real S3 server with backups
that came through the real gateway.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from managed.domain.errors import (
    EvidenceMissing,
    InvalidInput,
    Json,
    LeaseLost,
    MissingRequirement,
    NoBackup,
    NotFound,
    ObjectStoreUnavailable,
    RepositoryDamaged,
    RepositoryLocked,
)
from managed.domain.manifests import listed_path, tree_order
from managed.domain.secrets import new_password
from managed.domain.snapshots import RepositoryAddress, SnapshotFile
from managed.drivers.fakes.repositories import FakeRepositories
from managed.drivers.processes import identity_of
from managed.drivers.restic.quarantine import INIT_TAKES
from managed.drivers.restic.repositories import ResticRepositories
from managed.drivers.s3 import S3ObjectStore
from managed.ports import BackupRepositories, RegisterChild
from tests.support.storage import Storage, free_port, storage
from tests.support.waiting import wait_until

NAMES = count(1)
Backup = Callable[[RepositoryAddress, Mapping[str, bytes]], str]


@dataclass
class Bench:
    """A port, a folder whose files can be backed up, how a server does so, and how a repository
    comes to be when its making is not the question.
    """

    port: BackupRepositories
    folder: Path
    backup: Backup
    provide: Callable[[str], RepositoryAddress]
    events: list[tuple[str, Mapping[str, Json]]] = field(default_factory=list)

    def emit(self, name: str, data: Mapping[str, Json]) -> None:
        self.events.append((name, data))

    def files(self, repository: RepositoryAddress, snapshot_id: str) -> list[SnapshotFile]:
        with self.port.files(repository, snapshot_id) as files:
            return list(files)

    def digest(self, repository: RepositoryAddress, snapshot_id: str, name: str) -> str:
        path = str(self.folder / name)
        return self.port.file_digest(repository, snapshot_id, path, 1000)

    def new_repository(self) -> RepositoryAddress:
        return self.provide(f"srv-{next(NAMES)}")


@pytest.fixture(scope="module")
def place() -> Iterator[Storage]:
    with storage() as running:
        yield running


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fake_bench(folder: Path) -> Bench:
    fake = FakeRepositories()

    def backup(repository: RepositoryAddress, content: Mapping[str, bytes]) -> str:
        files = {str(folder / name): data for name, data in content.items()}
        moment = datetime.now(UTC)
        return fake.add_snapshot(repository.account, moment, files, paths=[str(folder)])

    def provide(account: str) -> RepositoryAddress:
        address = RepositoryAddress(account, new_password())
        return replace(address, key_id=fake.create(address))

    return Bench(fake, folder, backup, provide)


def _real_bench(folder: Path, place: Storage) -> Bench:
    def backup(repository: RepositoryAddress, content: Mapping[str, bytes]) -> str:
        for name, data in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return place.intruder(repository).backup([folder], key_id=repository.key_id)

    return Bench(place.restic(), folder, backup, place.new_repository)


@pytest.fixture(params=["fake", pytest.param("restic", marks=pytest.mark.integration)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "fake":
        return _fake_bench(tmp_path)
    return _real_bench(tmp_path, request.getfixturevalue("place"))


def test_a_created_repository_takes_backups_and_is_created_once(bench: Bench) -> None:
    address = RepositoryAddress(f"srv-{next(NAMES)}", new_password())
    children: list[int] = []
    repository = replace(address, key_id=bench.port.create(address, children.append))
    assert (len(repository.key_id), len(children)) == (64, 1)
    assert bench.port.snapshots(repository) == []
    for again in (repository, address):
        assert bench.port.create(again, children.append) == repository.key_id
    assert len(children) == 1
    snapshot = bench.backup(repository, {"a": b"x"})
    assert [found.snapshot_id for found in bench.port.snapshots(repository)] == [snapshot]
    assert bench.port.check(repository, 1, 1, bench.emit).is_sound


def test_creating_again_with_another_password_is_refused(bench: Bench) -> None:
    repository = bench.new_repository()
    with pytest.raises(RepositoryDamaged):
        bench.port.create(replace(repository, password=new_password()))
    assert bench.port.snapshots(repository) == []


def test_snapshots_are_listed_oldest_first(bench: Bench) -> None:
    repository = bench.new_repository()
    ids = [bench.backup(repository, {"a": b"1" * size}) for size in (1, 20)]
    found = bench.port.snapshots(repository)
    assert [snapshot.snapshot_id for snapshot in found] == ids
    assert [(snapshot.files, snapshot.size) for snapshot in found] == [(1, 1), (1, 20)]
    assert found[0].paths == (str(bench.folder),)
    assert found[0].hostname == repository.account
    assert found[0].time.tzinfo is not None


def test_files_come_with_metadata_and_content(bench: Bench) -> None:
    repository = bench.new_repository()
    snapshot = bench.backup(repository, {"deep/a": b"\0\xff\n", "empty": b""})
    files = {file.path: file for file in bench.files(repository, snapshot)}
    assert files[str(bench.folder / "deep")].kind == "dir"
    found = files[str(bench.folder / "deep/a")]
    assert (found.kind, found.mode, found.size) == ("file", 0o644, 3)
    for name, content in {"deep/a": b"\0\xff\n", "empty": b""}.items():
        assert bench.digest(repository, snapshot, name) == sha256(content)


def test_files_come_in_tree_order_and_may_be_left_before_their_end(bench: Bench) -> None:
    repository = bench.new_repository()
    odd = os.fsdecode(b"\xe8")
    names = ["a", "a-b", "a.d/x", f"{odd}/below", f"{odd}-", "\uac00", "z"]
    snapshot = bench.backup(repository, dict.fromkeys(names, b"x"))
    found = [file.path for file in bench.files(repository, snapshot)]
    beside = [str(bench.folder / name) for name in (*names, "a.d", odd)]
    expected = [listed_path(path) for path in sorted(beside, key=tree_order)]
    assert [path for path in found if path.startswith(f"{bench.folder}/")] == expected
    children: list[int] = []
    with bench.port.files(repository, snapshot, children.append) as files:
        assert next(files).kind == "dir"
    assert [group for group in children if group != os.getpgid(0) and identity_of(group)] == []


def test_no_more_of_a_file_is_read_than_it_may_have(bench: Bench) -> None:
    repository = bench.new_repository()
    snapshot = bench.backup(repository, {"a": bytes(3_000_000)})
    path = str(bench.folder / "a")
    whole = bench.port.file_digest(repository, snapshot, path, 3_000_000)
    assert whole == sha256(bytes(3_000_000))
    children: list[int] = []
    for largest in (0, 2_999_999):
        with pytest.raises(EvidenceMissing):
            bench.port.file_digest(repository, snapshot, path, largest, children.append)
    assert [group for group in children if group != os.getpgid(0) and identity_of(group)] == []


def test_content_comes_as_it_is_and_a_folder_as_an_archive(bench: Bench) -> None:
    repository = bench.new_repository()
    odd = os.fsdecode(b"latin-\xe8")
    files = {"a": bytes(3_000_000), "sub/b": b"b", f"sub/{odd}": b"odd"}
    snapshot = bench.backup(repository, files)

    def content(path: str) -> bytes:
        with bench.port.content(repository, snapshot, path) as chunks:
            return b"".join(chunks)

    assert content(str(bench.folder / "a")) == files["a"]
    folder = str(bench.folder / "sub")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content(folder)), mode="r|", encoding="utf-8") as archive:
        for member in archive:
            if member.isreg() and (file := archive.extractfile(member)) is not None:
                found[f"/{member.name}"] = file.read()
    assert found == {f"{folder}/b": b"b", f"{folder}/{odd}": b"odd"}
    with pytest.raises(NotFound):
        content(str(bench.folder / "gone"))
    with pytest.raises(NotFound), bench.port.content(repository, "ab" * 32, folder) as chunks:
        list(chunks)


def test_content_may_be_left_before_its_end(bench: Bench) -> None:
    repository = bench.new_repository()
    snapshot = bench.backup(repository, {"a": bytes(3_000_000)})
    children: list[int] = []
    path = str(bench.folder / "a")
    with bench.port.content(repository, snapshot, path, children.append) as chunks:
        assert next(chunks)
    assert [group for group in children if group != os.getpgid(0) and identity_of(group)] == []


def test_whoever_takes_over_can_end_what_works(bench: Bench) -> None:
    """Every process is registered, and ends when that fails: the lease may be lost by then."""
    address = bench.new_repository()
    children: list[int] = []
    snapshot, path = bench.backup(address, {"a": b"x"}), str(bench.folder / "a")

    def listed(register: RegisterChild) -> None:
        with bench.port.files(address, snapshot, register) as files:
            list(files)

    def read(register: RegisterChild) -> None:
        with bench.port.content(address, snapshot, path, register) as chunks:
            list(chunks)

    calls: list[Callable[[RegisterChild], object]] = [
        lambda register: bench.port.snapshots(address, register),
        listed,
        read,
        lambda register: bench.port.file_digest(address, snapshot, path, 1, register),
        lambda register: bench.port.check(address, 1, 1, bench.emit, register),
        lambda register: bench.port.unlock(address, register),
    ]

    def refuse(group: int) -> None:
        children.append(group)
        raise LeaseLost("another worker has the job")

    for number, call in enumerate(calls):
        call(children.append)
        assert len(children) == 1 + 2 * number
        with pytest.raises(LeaseLost):
            call(refuse)
    assert [group for group in children if group != os.getpgid(0) and identity_of(group)] == []
    assert bench.port.check(address, 1, 1, bench.emit).is_sound


def test_names_of_any_bytes_are_listed_alike_and_read_apart(bench: Bench) -> None:
    repository = bench.new_repository()
    endings = {"\N{REPLACEMENT CHARACTER}": b"one", os.fsdecode(b"\xe8"): b"two"}
    names = {f"latin-{end}": content for end, content in endings.items()}
    snapshot = bench.backup(repository, names)
    listed = [file.path for file in bench.files(repository, snapshot) if file.kind == "file"]
    assert listed == [str(bench.folder / "latin-\ufffd")] * 2
    for name, content in names.items():
        assert bench.digest(repository, snapshot, name) == sha256(content)


def test_what_a_snapshot_does_not_hold_is_not_found(bench: Bench) -> None:
    repository = bench.new_repository()
    snapshot = bench.backup(repository, {"a": b"x"})
    with pytest.raises(NotFound):
        bench.digest(repository, snapshot, "none")
    with pytest.raises(NotFound):
        bench.files(repository, "0" * 64)
    with pytest.raises(NotFound):
        bench.digest(repository, "0" * 64, "a")


def test_a_good_repository_is_sound(bench: Bench) -> None:
    repository = bench.new_repository()
    bench.backup(repository, {"a": os.urandom(5000)})
    children: list[int] = []
    for part in (1, 2):
        check = bench.port.check(repository, part, 2, bench.emit, children.append)
        assert (check.part, check.parts, check.errors, check.warnings) == (part, 2, (), ())
    assert len(children) == 2
    assert bench.events[0] == ("repository_check_started", {"part": 1, "parts": 2})


@pytest.mark.parametrize("part", [0, 3])
def test_there_is_no_such_part(bench: Bench, part: int) -> None:
    with pytest.raises(InvalidInput):
        bench.port.check(bench.new_repository(), part, 2, bench.emit)


def test_without_repository_there_is_no_backup(bench: Bench) -> None:
    nowhere = RepositoryAddress("srv-nowhere", new_password(), "0" * 64)
    for call in (bench.port.snapshots, bench.port.quarantine, bench.port.unlock):
        with pytest.raises(NoBackup):
            call(nowhere)
    with pytest.raises(NoBackup):
        bench.files(nowhere, "0" * 64)
    with pytest.raises(NoBackup):
        bench.digest(nowhere, "0" * 64, "a")
    with pytest.raises(NoBackup):
        bench.port.check(nowhere, 1, 1, bench.emit)


def test_a_wrong_password_opens_nothing(bench: Bench) -> None:
    repository = replace(bench.new_repository(), password=new_password())
    for call in (bench.port.snapshots, bench.port.quarantine):
        with pytest.raises(RepositoryDamaged) as caught:
            call(repository)
        assert repository.password.reveal() not in str(caught.value.as_json())


def test_nothing_of_a_good_repository_is_quarantined(bench: Bench) -> None:
    repository = bench.new_repository()
    bench.backup(repository, {"a": b"x"})
    assert bench.port.quarantine(repository) == []
    assert bench.port.quarantine(replace(repository, key_id="")) == []
    bench.port.unlock(repository)
    assert len(bench.port.snapshots(repository)) == 1


@pytest.mark.integration
def test_damaged_and_missing_packs_are_errors(place: Storage, tmp_path: Path) -> None:
    bench = _real_bench(tmp_path, place)
    repository = bench.new_repository()
    bench.backup(repository, {"a": os.urandom(50_000)})
    sizes = place.objects.sizes(f"repositories/{repository.account}/data/")
    largest = max(sizes, key=lambda key: sizes[key])
    content = bytearray(place.objects.get(largest))
    content[1000] ^= 1
    place.objects.put(largest, bytes(content))
    assert not bench.port.check(repository, 1, 1, bench.emit).is_sound
    place.objects.delete(largest)
    check = bench.port.check(repository, 1, 1, bench.emit)
    assert any(Path(largest).name[:8] in error for error in check.errors)


@pytest.mark.integration
def test_a_creation_that_was_killed_half_way_can_be_repeated(place: Storage) -> None:
    repository = RepositoryAddress("srv-half", new_password())
    restic = place.restic()
    first = restic.create(repository)
    place.objects.delete("repositories/srv-half/config")
    with pytest.raises(RepositoryLocked) as caught:
        restic.create(repository)
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= INIT_TAKES.total_seconds()
    later = datetime.now(UTC) + INIT_TAKES
    second = place.restic(lambda: later).create(repository)
    assert second != first
    assert place.objects.keys("repositories/srv-half/keys/") == [
        f"repositories/srv-half/keys/{second}"
    ]


@pytest.mark.integration
def test_a_repository_that_lost_its_configuration_is_not_made_anew(
    place: Storage, tmp_path: Path
) -> None:
    bench = _real_bench(tmp_path, place)
    repository = bench.new_repository()
    bench.backup(repository, {"a": b"x"})
    before = place.objects.keys(f"repositories/{repository.account}/")
    place.objects.delete(f"repositories/{repository.account}/config")
    with pytest.raises(RepositoryDamaged):
        bench.port.create(repository)
    after = place.objects.keys(f"repositories/{repository.account}/")
    assert set(before) - set(after) == {f"repositories/{repository.account}/config"}


@pytest.mark.integration
def test_a_dead_object_store_is_said_at_once(place: Storage) -> None:
    store = replace(place.settings, endpoint=f"http://127.0.0.1:{free_port()}")
    settings = replace(place.restic_settings, store=store)
    restic = ResticRepositories(settings, S3ObjectStore(store, timeout=2))
    with pytest.raises(ObjectStoreUnavailable):
        restic.snapshots(RepositoryAddress("srv-any", new_password()))


@pytest.mark.integration
def test_restic_is_there_and_new_enough(place: Storage) -> None:
    assert place.restic().version() >= "0.18"
    settings = replace(place.restic_settings, binary=Path("/nowhere/restic"))
    with pytest.raises(MissingRequirement, match="/nowhere/restic"):
        ResticRepositories(settings, place.objects).version()


@pytest.mark.integration
def test_the_lock_of_a_running_backup_is_respected(place: Storage, tmp_path: Path) -> None:
    bench = _real_bench(tmp_path, place)
    repository = bench.new_repository()
    client = place.intruder(repository)
    locks = f"repositories/{repository.account}/locks/"
    waiting = client.start("backup", "--stdin", "--stdin-filename", "slow")
    try:
        wait_until(lambda: place.objects.keys(locks), timeout=30, what="the backup's lock")
        with pytest.raises(RepositoryLocked) as caught:
            bench.port.check(repository, 1, 1, bench.emit)
        assert caught.value.retryable
        assert bench.port.quarantine(repository) == []
        assert len(place.objects.keys(locks)) == 1
    finally:
        waiting.communicate(b"done", timeout=60)
    assert waiting.returncode == 0
    assert bench.port.check(repository, 1, 1, bench.emit).is_sound


@pytest.mark.integration
def test_a_dead_processs_lock_is_removed_by_itself(place: Storage, tmp_path: Path) -> None:
    bench = _real_bench(tmp_path, place)
    repository = bench.new_repository()
    locks = f"repositories/{repository.account}/locks/"
    killed = place.intruder(repository).start("backup", "--stdin")
    wait_until(lambda: place.objects.keys(locks), timeout=30, what="the backup's lock")
    killed.kill()
    killed.communicate()
    assert len(place.objects.keys(locks)) == 1
    assert bench.port.check(repository, 1, 1, bench.emit).is_sound
    assert place.objects.keys(locks) == []
