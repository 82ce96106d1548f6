"""Which objects belong into a repository, on a bucket in memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from managed.domain.errors import RepositoryDamaged, RepositoryLocked
from managed.domain.secrets import Secret
from managed.domain.snapshots import RepositoryAddress
from managed.drivers.fakes.objects import FakeObjectStore
from managed.drivers.restic.crypto import Key
from managed.drivers.restic.quarantine import (
    INIT_TAKES,
    Inspection,
    Kind,
    place_of,
    quarantine_key,
)
from tests.support.restic_objects import encrypted, key_file, new_key

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
DIGEST = "ab" * 32


@dataclass
class Repository:
    objects: FakeObjectStore
    address: RepositoryAddress
    master: Key

    def add(self, kind: str, content: bytes) -> str:
        name = f"{kind}/{hashlib.sha256(content).hexdigest()}"
        self.objects.put(f"repositories/srv-a/{name}", content)
        return name

    def strays(self) -> list[str]:
        return list(Inspection(self.objects, self.address, NOW).strays())


@pytest.fixture
def repository() -> Repository:
    master = new_key()
    made = Repository(FakeObjectStore(), RepositoryAddress("srv-a", Secret("p")), master)
    key_id = made.add("keys", key_file(master, "p")).removeprefix("keys/")
    made.address = RepositoryAddress("srv-a", Secret("p"), key_id)
    made.objects.put("repositories/srv-a/config", encrypted(master, b"{}"))
    made.objects.put(f"repositories/srv-a/data/ab/{DIGEST}", b"any pack")
    for kind in ("index", "snapshots"):
        made.add(kind, encrypted(master, b"{}"))
    return made


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("config", Kind.CONFIG),
        (f"keys/{DIGEST}", Kind.KEY),
        (f"index/{DIGEST}", Kind.INDEX),
        (f"snapshots/{DIGEST}", Kind.SNAPSHOT),
        (f"locks/{DIGEST}", Kind.LOCK),
        (f"data/ab/{DIGEST}", Kind.DATA),
    ],
)
def test_restics_own_places(name: str, kind: Kind) -> None:
    place = place_of(name)
    assert place is not None
    assert place.kind is kind


@pytest.mark.parametrize(
    "name",
    [
        "",
        "config/x",
        "config\n",
        "other",
        f"keys/{DIGEST.upper()}",
        f"keys/{DIGEST[:-1]}",
        f"keys/{DIGEST}\n",
        f"keys/x/{DIGEST}",
        f"x/keys/{DIGEST}",
        f"data/{DIGEST}",
        f"data/cd/{DIGEST}",
        f"packs/{DIGEST}",
    ],
)
def test_nowhere(name: str) -> None:
    assert place_of(name) is None


def test_a_good_repository_has_no_strays(repository: Repository) -> None:
    assert repository.strays() == []


@pytest.mark.parametrize("kind", ["index", "snapshots", "locks"])
@pytest.mark.parametrize(
    "content",
    [b"", b"junk", bytes(500), encrypted(new_key(), b"{}")],
    ids=["empty", "junk", "zeros", "of another key"],
)
def test_what_was_not_written_with_the_key_is_a_stray(
    repository: Repository, kind: str, content: bytes
) -> None:
    assert repository.strays() == []
    name = repository.add(kind, content)
    assert repository.strays() == [name]


def test_a_copy_under_another_name_is_a_stray(repository: Repository) -> None:
    genuine = repository.objects.keys("repositories/srv-a/snapshots/")[0]
    name = f"snapshots/{DIGEST}"
    repository.objects.put(f"repositories/srv-a/{name}", repository.objects.get(genuine))
    assert repository.strays() == [name]


def test_every_other_key_is_a_stray(repository: Repository) -> None:
    planted = [repository.add("keys", key_file(repository.master, p)) for p in ("p", "q")]
    assert repository.strays() == sorted(planted)


def test_what_is_too_large_is_not_even_read(repository: Repository) -> None:
    huge = repository.add("locks", encrypted(repository.master, bytes(1024 * 1024)))
    assert repository.strays() == [huge]


@pytest.mark.parametrize(
    ("ahead", "is_stray"),
    [
        (timedelta(hours=-5), False),
        (timedelta(minutes=50), False),
        (timedelta(minutes=70), True),
        (timedelta(days=90_000), True),
    ],
)
def test_locks_may_not_be_dated_ahead(
    repository: Repository, ahead: timedelta, is_stray: bool
) -> None:
    lock = json.dumps({"time": (NOW + ahead).isoformat()}).encode()
    name = repository.add("locks", encrypted(repository.master, lock))
    assert repository.strays() == ([name] if is_stray else [])


@pytest.mark.parametrize("plain", [b"[]", b"{}", b"x", b'{"time": 5}', b'{"time": "2026-11-24"}'])
def test_a_lock_without_a_time_is_a_stray(repository: Repository, plain: bytes) -> None:
    name = repository.add("locks", encrypted(repository.master, plain))
    assert repository.strays() == [name]


def test_without_the_providers_key_nothing_is_moved(repository: Repository) -> None:
    repository.objects.delete(f"repositories/srv-a/keys/{repository.address.key_id}")
    repository.add("keys", key_file(repository.master, "p"))
    before = dict(repository.objects.content)
    with pytest.raises(RepositoryDamaged):
        Inspection(repository.objects, repository.address, NOW).move_strays()
    assert repository.objects.content == before


def test_strays_are_moved_with_their_content(repository: Repository) -> None:
    name = repository.add("index", b"junk")
    odd = "a/../b c"
    repository.objects.put(f"repositories/srv-a/{odd}", b"odd")
    inspection = Inspection(repository.objects, repository.address, NOW)
    assert list(inspection.move_strays()) == [odd, name]
    assert repository.strays() == []
    assert repository.objects.get(f"quarantine/srv-a/20261124T030000Z/{name}") == b"junk"
    kept = repository.objects.keys("quarantine/srv-a/20261124T030000Z/odd-names/")
    assert [repository.objects.get(key) for key in kept] == [b"odd"]


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "a//b", "a/", "/a", "a b", "ü", "x" * 1000, ".hidden", "a\n", "a\\b"]
)
def test_names_that_may_do_harm_become_their_hash(name: str) -> None:
    key = quarantine_key("srv-a", NOW, name)
    assert key.startswith("quarantine/srv-a/20261124T030000Z/odd-names/")
    assert len(key) < 150


def test_a_neighbour_whose_name_begins_the_same_is_left_alone(repository: Repository) -> None:
    repository.objects.put("repositories/srv-a2/index/junk", b"junk")
    assert repository.strays() == []


def half_made(objects: FakeObjectStore, made_at: str) -> Inspection:
    """A repository that has got its key and no configuration."""
    objects.put("repositories/srv-b/keys/" + DIGEST, json.dumps({"created": made_at}).encode())
    return Inspection(objects, RepositoryAddress("srv-b", Secret("p")), NOW)


@pytest.mark.parametrize("made_at", ["2026-11-24T02:56:00Z", "2026-11-24T04:59:59.123456789+02:00"])
def test_a_key_that_may_just_have_been_written_is_left_to_its_maker(made_at: str) -> None:
    objects = FakeObjectStore()
    inspection = half_made(objects, made_at)
    with pytest.raises(RepositoryLocked) as caught:
        inspection.remove_half_made(inspection.names())
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= INIT_TAKES.total_seconds()
    assert len(objects.content) == 1


def test_a_key_whose_maker_was_killed_makes_room() -> None:
    objects = FakeObjectStore()
    inspection = half_made(objects, "2026-11-24T02:55:00Z")
    inspection.remove_half_made(inspection.names())
    assert objects.content == {}


@pytest.mark.parametrize("made_at", ["yesterday", "2026-11-24T02:00:00", ""])
def test_what_is_no_key_file_is_not_removed(made_at: str) -> None:
    objects = FakeObjectStore()
    inspection = half_made(objects, made_at)
    with pytest.raises(RepositoryDamaged):
        inspection.remove_half_made(inspection.names())
    assert len(objects.content) == 1
