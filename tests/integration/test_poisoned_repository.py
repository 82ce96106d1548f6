"""What root on a server can do to its backups: real restic and requests of its own, through the
real gateway, on a real S3 server. Nothing may be lost, and what is planted may not stop a restore.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from managed.domain.errors import Json, ManagedError
from managed.domain.secrets import new_password
from managed.domain.snapshots import RepositoryAddress
from managed.drivers.rclone import clean_environment
from managed.drivers.restic.commands import restic_environment
from managed.drivers.restic.crypto import Key, decrypted, document_in, opened_key_file
from managed.drivers.restic.repositories import ResticRepositories
from tests.support.restic_objects import encrypted, key_file, new_key
from tests.support.storage import Intruder, Storage, restic_binary, storage

pytestmark = pytest.mark.integration

JUNK = os.urandom(300)
SHORT_JUNK = b"junk"


@dataclass(frozen=True)
class Victim:
    """A server's repository with one good backup in it, and root on that server."""

    place: Storage
    restic: ResticRepositories
    repository: RepositoryAddress
    intruder: Intruder
    folder: Path
    snapshot_id: str

    @property
    def root(self) -> str:
        return f"repositories/{self.repository.account}/"

    def objects(self) -> dict[str, bytes]:
        """Every object of the repository and its content."""
        return {key: self.place.objects.get(key) for key in self.place.objects.keys(self.root)}

    def plant(self, name: str, content: bytes) -> None:
        """Add an object through the gateway, and see that it is really there."""
        status, _ = self.intruder.request("POST", f"/{self.repository.account}/{name}", content)
        assert status == 200, name
        is_pack = name.startswith("data/") and len(name) == 5 + 64
        stored = f"data/{name[5:7]}/{name[5:]}" if is_pack else name
        assert self.place.objects.get(f"{self.root}{stored}") == content

    def plant_named_by_content(self, kind: str, content: bytes) -> str:
        name = f"{kind}/{hashlib.sha256(content).hexdigest()}"
        self.plant(name, content)
        return name

    def restored(self, target: Path) -> bytes:
        """What the provider's restore of the file brings back."""
        command = (
            *(str(restic_binary()), "--key-hint", self.repository.key_id, "restore"),
            *(self.snapshot_id, "--target", str(target)),
        )
        environment = clean_environment(
            restic_environment(self.place.restic_settings, self.repository)
        )
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
        return (target / self.folder.relative_to("/") / "file").read_bytes()

    def master_key(self) -> Key:
        """Root has it too: it opens the repository for every backup."""
        content = self.place.objects.get(f"{self.root}keys/{self.repository.key_id}")
        return opened_key_file(content, self.repository.password)

    def takes_backups(self) -> None:
        (self.folder / "new").write_bytes(os.urandom(1000))
        self.intruder.backup([self.folder], key_id=self.repository.key_id)
        assert self.restic.check(self.repository, 1, 1, _ignore).is_sound

    def works_again(self, target: Path) -> None:
        """The provider's jobs and the server's next backup, all of them."""
        snapshots = self.restic.snapshots(self.repository)
        assert [snapshot.snapshot_id for snapshot in snapshots] == [self.snapshot_id]
        path = str(self.folder / "file")
        content = (self.folder / "file").read_bytes()
        digest = self.restic.file_digest(self.repository, self.snapshot_id, path, len(content))
        assert digest == hashlib.sha256(content).hexdigest()
        assert self.restored(target) == content
        assert self.restic.check(self.repository, 1, 1, _ignore).is_sound
        self.takes_backups()
        assert len(self.restic.snapshots(self.repository)) == 2


def _ignore(_name: str, _data: Mapping[str, Json]) -> None:
    return None


@pytest.fixture(scope="module")
def place() -> Iterator[Storage]:
    with storage() as running:
        yield running


@pytest.fixture
def victim(place: Storage, tmp_path: Path) -> Victim:
    repository = place.new_repository(f"srv-{tmp_path.name.replace('_', '-')[:40]}")
    intruder = place.intruder(repository)
    folder = tmp_path / "srv"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(40_000))
    snapshot_id = intruder.backup([folder], key_id=repository.key_id)
    return Victim(place, place.restic(), repository, intruder, folder, snapshot_id)


def test_nothing_can_be_deleted(victim: Victim) -> None:
    before = victim.objects()
    assert {name.split("/")[2] for name in before} == {
        "config", "data", "index", "keys", "snapshots",
    }  # fmt: skip
    for key in before:
        path = f"/{key.removeprefix('repositories/')}"
        restic_path = path.replace("/data/" + Path(path).name[:2], "/data")
        for attempt in (path, restic_path, f"{path}/", f"{path}?locks/x", f"{path}%2flocks%2f.."):
            status, _ = victim.intruder.request("DELETE", attempt)
            assert status in (400, 403), attempt
    forget = victim.intruder.restic("forget", "--prune", victim.snapshot_id)
    assert "403" in forget.stderr
    assert victim.objects() == before


def test_locks_alone_can_be_deleted(victim: Victim) -> None:
    name = victim.plant_named_by_content("locks", JUNK)
    status, _ = victim.intruder.request("DELETE", f"/{victim.repository.account}/{name}")
    assert status == 200
    assert f"{victim.root}{name}" not in victim.objects()


def test_nothing_can_be_overwritten(victim: Victim) -> None:
    before = victim.objects()
    for key, content in before.items():
        path = f"/{key.removeprefix('repositories/')}"
        for body in (JUNK, b"", content):
            status, _ = victim.intruder.request("POST", path, body)
            assert status == 403, path
        for method in ("PUT", "PATCH", "MOVE", "COPY"):
            status, _ = victim.intruder.request(method, path, JUNK)
            assert status in (403, 405), (method, path)
    assert victim.objects() == before


def test_a_neighbour_can_be_neither_read_nor_listed_nor_written(
    victim: Victim, place: Storage
) -> None:
    place.new_repository("srv-neighbour")
    secrets = victim.place.objects.keys("repositories/srv-neighbour/")
    before = {key: place.objects.get(key) for key in secrets}
    own = victim.repository.account
    ways = [
        way + below
        for below in ("config", "keys/", "snapshots/", "", secrets[-1].split("/", 2)[2])
        for way in (
            "/srv-neighbour/",
            "//srv-neighbour/",
            f"/{own}/../srv-neighbour/",
            f"/{own}/%2e%2e/srv-neighbour/",
            f"/{own}%2f..%2fsrv-neighbour/",
            f"/{own}/..%2fsrv-neighbour/",
            f"/{own}/./../srv-neighbour/",
            f"/{own}/%EF%BC%8E%EF%BC%8E/srv-neighbour/",
        )
    ]
    for way in [*ways, "/", "/srv-neighbour"]:
        for method in ("GET", "HEAD"):
            status, body = victim.intruder.request(method, way)
            # The last way names a folder of one's own, which is empty.
            assert status in (400, 403, 404) or body in (b"", b"[]\n"), (method, way)
    for way in ways:
        victim.intruder.request("DELETE", way)
        victim.intruder.request("POST", way, JUNK)
    listing = victim.intruder.restic("snapshots", repository="srv-neighbour")
    assert listing.returncode != 0
    found = place.objects.keys("repositories/srv-neighbour/")
    assert {key: place.objects.get(key) for key in found} == before


def test_strangers_get_nothing(victim: Victim) -> None:
    stranger = replace(victim.intruder, gateway_password=new_password())
    for method in ("GET", "HEAD", "POST", "DELETE"):
        status, _ = stranger.request(method, f"/{victim.repository.account}/config")
        assert status == 401


@pytest.mark.parametrize(
    ("kind", "junk"),
    [
        ("index", JUNK),
        ("index", SHORT_JUNK),
        ("snapshots", JUNK),
        ("snapshots", SHORT_JUNK),
        # Over a longer junk lock restic broods for 35 seconds; below it goes with the rest.
        ("locks", SHORT_JUNK),
    ],
)
def test_one_junk_object_is_quarantined(victim: Victim, kind: str, junk: bytes) -> None:
    before = victim.objects()
    name = victim.plant_named_by_content(kind, junk)
    assert _is_poisoned(victim)
    assert list(victim.restic.quarantine(victim.repository)) == [name]
    _remove_locks_that_crashes_left(victim)
    assert victim.objects() == before
    kept = victim.place.objects.keys(f"quarantine/{victim.repository.account}/")
    assert [victim.place.objects.get(key) for key in kept] == [junk]
    victim.takes_backups()


def test_twenty_five_junk_keys_are_quarantined(victim: Victim, tmp_path: Path) -> None:
    before = victim.objects()
    planted: set[str] = set()
    while len(planted) < 25:
        junk_key = key_file(new_key(), "another password")
        # restic tries 20 keys in the order of their names; these come before the genuine one.
        if hashlib.sha256(junk_key).hexdigest() < victim.repository.key_id:
            planted.add(victim.plant_named_by_content("keys", junk_key))
    unnamed = victim.intruder.restic("snapshots")
    assert unnamed.returncode != 0
    assert "maximum" in unnamed.stderr
    assert len(victim.restic.snapshots(victim.repository)) == 1
    assert set(victim.restic.quarantine(victim.repository)) == planted
    assert victim.objects() == before
    victim.works_again(tmp_path / "restored")


def test_a_key_that_root_added_by_the_rules_is_quarantined(victim: Victim) -> None:
    """It opens the repository with a password of root's own, and goes."""
    before = victim.objects()
    password_file = victim.folder / "password"
    password_file.write_text("root's own")
    added = victim.intruder.restic("key", "add", "--new-password-file", str(password_file))
    assert added.returncode == 0, added.stderr
    own = replace(victim.repository, password=type(victim.repository.password)("root's own"))
    assert len(victim.restic.snapshots(replace(own, key_id=""))) == 1
    [moved] = victim.restic.quarantine(victim.repository)
    assert moved.startswith("keys/")
    assert victim.objects() == before
    with pytest.raises(ManagedError):
        victim.restic.snapshots(replace(own, key_id=""))


def test_everything_at_once(victim: Victim, tmp_path: Path) -> None:
    before = victim.objects()
    planted = {
        victim.plant_named_by_content(kind, JUNK) for kind in ("index", "snapshots", "locks")
    }
    planted |= {victim.plant_named_by_content("keys", os.urandom(50)) for _ in range(25)}
    odd = ("index/no-hash", "snapshots/deep/er", "keys/x/y", "locks/x", "else/where", "a b\\c")
    for name in odd:
        status, _ = victim.intruder.request(
            "POST", f"/{victim.repository.account}/{name.replace(' ', '%20')}", SHORT_JUNK
        )
        assert status == 200
    planted |= set(odd)
    wrong_name = f"index/{'0' * 64}"
    victim.plant(wrong_name, JUNK)
    bad_pack = "data/not-a-pack"
    victim.plant(bad_pack, JUNK)
    planted |= {wrong_name, bad_pack}
    oversized = victim.plant_named_by_content("locks", bytes(1024 * 1024 + 1))
    assert set(victim.restic.quarantine(victim.repository)) == {*planted, oversized}
    assert victim.restic.quarantine(victim.repository) == []
    assert victim.objects() == before
    victim.works_again(tmp_path / "restored")


def test_a_junk_pack_harms_nothing_and_is_warned_of(victim: Victim, tmp_path: Path) -> None:
    victim.plant_named_by_content("data", JUNK)
    assert victim.restic.quarantine(victim.repository) == []
    check = victim.restic.check(victim.repository, 1, 1, _ignore)
    assert check.is_sound
    assert "no index names" in check.warnings[0]
    victim.works_again(tmp_path / "restored")


def test_a_lock_from_the_future_is_quarantined(victim: Victim, tmp_path: Path) -> None:
    """Written with the repository's own key, which root has; restic would wait for it for ever."""
    key = victim.master_key()
    locks = {}
    for name, ahead in (("far", timedelta(days=300)), ("near", timedelta(minutes=-2))):
        lock = {
            "time": (datetime.now(UTC) + ahead).isoformat(),
            "exclusive": False,
            "hostname": "elsewhere",
            "username": "root",
            "pid": 1,
        }
        content = encrypted(key, json.dumps(lock).encode())
        locks[name] = victim.plant_named_by_content("locks", content)
    assert list(victim.restic.quarantine(victim.repository)) == [locks["far"]]
    assert f"{victim.root}{locks['near']}" in victim.objects()
    victim.place.objects.delete(f"{victim.root}{locks['near']}")
    victim.works_again(tmp_path / "restored")


@pytest.mark.parametrize("blobs", ["of its own", "of the backup"])
def test_an_index_that_names_a_missing_pack_stops_no_restore(
    victim: Victim, tmp_path: Path, blobs: str
) -> None:
    """Written with the repository's own key: it belongs there as far as anybody can tell, and
    stays. No check is ever green again, so no new backup counts; those that did come back.
    """
    key, missing = victim.master_key(), "22" * 32
    [genuine] = victim.place.objects.keys(f"{victim.root}index/")
    index = document_in(decrypted(key, victim.place.objects.get(genuine)), 1_000_000)
    assert isinstance(index, dict)
    packs: Any = index["packs"]
    if blobs == "of its own":
        packs = [{"blobs": [{"id": "11" * 32, "type": "data", "offset": 0, "length": 100}]}]
    planted = {"packs": [{**pack, "id": missing} for pack in packs]}
    victim.plant_named_by_content("index", encrypted(key, json.dumps(planted).encode()))

    assert victim.restic.quarantine(victim.repository) == []
    check = victim.restic.check(victim.repository, 1, 1, _ignore)
    assert any(missing[:8] in error for error in check.errors)
    content = (victim.folder / "file").read_bytes()
    assert victim.restored(tmp_path / "restored") == content
    path = str(victim.folder / "file")
    digest = victim.restic.file_digest(victim.repository, victim.snapshot_id, path, len(content))
    assert digest == hashlib.sha256(content).hexdigest()


def test_a_quarantine_that_was_killed_half_way_can_be_repeated(victim: Victim) -> None:
    before = victim.objects()
    name = victim.plant_named_by_content("index", JUNK)
    copied = f"quarantine/{victim.repository.account}/earlier/{name}"
    victim.place.objects.put(copied, JUNK)
    assert list(victim.restic.quarantine(victim.repository)) == [name]
    assert victim.objects() == before
    assert victim.place.objects.get(copied) == JUNK


def _is_poisoned(victim: Victim) -> bool:
    """Does what was planted really stop the provider's check?"""
    try:
        return not victim.restic.check(victim.repository, 1, 1, _ignore).is_sound
    except ManagedError:
        return True


def _remove_locks_that_crashes_left(victim: Victim) -> None:
    """restic 0.18 panics over objects shorter than its header, and leaves its lock behind."""
    victim.restic.unlock(victim.repository)
