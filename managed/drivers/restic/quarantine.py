"""What does not belong into a repository, and where it goes.

Root on a server holds the gateway's and the repository's passwords. Append-only keeps what is
there; it does not keep root from adding, and restic fails on much that can be added (tried with
0.18: an index, snapshot or lock that does not decrypt ends backup, check and restore; one shorter
than 32 bytes makes it panic; 25 key files make the repository unopenable). So before our jobs rely
on a repository, this finds every object whose name is none of restic's, whose content is not what
its name says, or that was not written with the repository's key, and every key but the provider's.

Not in scope: what root writes *with* the repository's key. A snapshot of nonsense is a snapshot,
and an index that lies about packs is for `restic check` to find. Locks dated ahead are the
exception, because they would never go stale. Packs are not read: junk under a pack's name harms
nothing (tried) until `prune` removes it, and `check` warns of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from managed.domain.errors import NotFound, RepositoryDamaged, RepositoryLocked
from managed.domain.snapshots import RepositoryAddress
from managed.drivers.restic.commands import REPOSITORIES
from managed.drivers.restic.crypto import (
    Key,
    NotOfThisRepository,
    decrypted,
    document_in,
    is_named_after_content,
    key_made_at,
    opened_key_file,
)
from managed.ports import ObjectStore

QUARANTINE: Final = "quarantine"
CLOCK_TOLERANCE: Final = timedelta(hours=1)
# From the key to the configuration: far more than it needs, because deleting too soon is for ever.
INIT_TAKES: Final = timedelta(minutes=5)
READERS: Final = 4
MEBIBYTE: Final = 1024 * 1024
_NAME: Final = re.compile(r"(?:(keys|index|snapshots|locks)/|data/([0-9a-f]{2})/)([0-9a-f]{64})")
_PLAIN: Final = re.compile(r"(?!.*(?:^|/)[./])[A-Za-z0-9._/-]{1,200}(?<!/)")


class Kind(StrEnum):
    """The kinds of objects that a repository has."""

    CONFIG = "config"
    KEY = "keys"
    INDEX = "index"
    SNAPSHOT = "snapshots"
    LOCK = "locks"
    DATA = "data"

    @property
    def largest(self) -> int:
        """Bytes that one has at most; nothing larger is read. Far above what restic writes."""
        return {Kind.INDEX: 64, Kind.SNAPSHOT: 16}.get(self, 1) * MEBIBYTE


@dataclass(frozen=True)
class Place:
    """An object of a repository by its name there."""

    kind: Kind
    name: str


def place_of(name: str) -> Place | None:
    """Where restic keeps an object of this name (relative to the repository); None: nowhere."""
    if name == Kind.CONFIG:
        return Place(Kind.CONFIG, name)
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    flat, prefix, digest = found.groups()
    if flat:
        return Place(Kind(flat), digest)
    return Place(Kind.DATA, digest) if digest.startswith(prefix) else None


def quarantine_key(account: str, moment: datetime, name: str) -> str:
    """Where a stray goes. Names that a bucket or a file system may not take become their hash."""
    if not _PLAIN.fullmatch(name):
        name = f"odd-names/{hashlib.sha256(name.encode(errors='replace')).hexdigest()}"
    return f"{QUARANTINE}/{account}/{moment:%Y%m%dT%H%M%SZ}/{name}"


class Inspection:
    """One look at one repository. Reads its objects; changes nothing but by `move_strays` and
    `remove_half_made`.
    """

    def __init__(self, objects: ObjectStore, repository: RepositoryAddress, now: datetime) -> None:
        self._objects = objects
        self._repository = repository
        self._now = now
        self._root = f"{REPOSITORIES}/{repository.account}/"

    def names(self, below: str = "") -> Mapping[str, int]:
        """The repository's objects, relative to it, with their sizes."""
        found = self._objects.sizes(f"{self._root}{below}")
        return {key.removeprefix(self._root): size for key, size in found.items()}

    def trusted_key(self, names: Mapping[str, int]) -> tuple[str, Key]:
        """The key that the provider made, by its id; without an id the first that opens the
        repository's configuration. RepositoryDamaged when there is none.
        """
        known = self._repository.key_id
        candidates = [known] if known else self._key_names(names)
        for key_id in candidates:
            key = self._opened(key_id)
            if key is not None:
                return key_id, key
        raise RepositoryDamaged(
            f"no key opens the repository of {self._repository.account} with its password",
            hint="Its key file may be gone or replaced; look into keys/ of the repository.",
            account=self._repository.account,
            key_id=known,
        )

    def remove_half_made(self, names: Collection[str]) -> None:
        """Make room for `restic init`, which writes the key before the configuration and refuses to
        begin again after a kill between the two. A key alone protects nothing; anything more is a
        damaged repository. RepositoryLocked while a key is so young that its maker may still work:
        its repository would never open without it.
        """
        if any(not name.startswith(f"{Kind.KEY}/") for name in names):
            raise RepositoryDamaged(
                f"the repository of {self._repository.account} has objects but no configuration",
                hint="Was its `config` deleted? Look into the bucket before you make a new one.",
                account=self._repository.account,
            )
        for name in names:
            left = self._key_made_at(name) + INIT_TAKES - self._now
            if left > timedelta():
                raise RepositoryLocked(
                    f"the repository of {self._repository.account} is being made",
                    retry_after=left.total_seconds(),
                    account=self._repository.account,
                )
        for name in names:
            self._objects.delete(f"{self._root}{name}")

    def _key_made_at(self, name: str) -> datetime:
        """By the clock of the worker that ran restic: nobody else is let in before there is a
        configuration. Where it went meanwhile, somebody else is at this just now.
        """
        try:
            return key_made_at(self._objects.get(f"{self._root}{name}"))
        except NotFound:
            return self._now
        except NotOfThisRepository as error:
            raise RepositoryDamaged(
                f"{name} of {self._repository.account} is no key file",
                account=self._repository.account,
            ) from error

    def strays(self) -> Sequence[str]:
        """What does not belong, by name, sorted."""
        names = self.names()
        key_id, master = self.trusted_key(names)
        with ThreadPoolExecutor(READERS) as readers:
            verdicts = readers.map(
                lambda entry: self._belongs(entry[0], entry[1], key_id, master), names.items()
            )
            return sorted(
                name for name, belongs in zip(names, verdicts, strict=True) if not belongs
            )

    def move_strays(self) -> Sequence[str]:
        """Move them below quarantine/<account>/<time>/; one that went meanwhile is not counted.

        Killed between copy and delete, a stray is there twice, and the next call moves it again.
        """
        moved = []
        for name in self.strays():
            target = quarantine_key(self._repository.account, self._now, name)
            try:
                self._objects.move(f"{self._root}{name}", target)
            except NotFound:
                continue
            moved.append(name)
        return moved

    def _key_names(self, names: Mapping[str, int]) -> list[str]:
        places = ((place_of(name), size) for name, size in sorted(names.items()))
        return [
            place.name
            for place, size in places
            if place and place.kind is Kind.KEY and size <= Kind.KEY.largest
        ]

    def _opened(self, key_id: str) -> Key | None:
        """The master key, if this key file yields the one that the configuration was made with."""
        try:
            content = self._objects.get(f"{self._root}{Kind.KEY}/{key_id}")
            if not is_named_after_content(key_id, content):
                return None
            key = opened_key_file(content, self._repository.password)
            decrypted(key, self._objects.get(f"{self._root}{Kind.CONFIG}"))
        except (NotFound, NotOfThisRepository):
            return None
        return key

    def _belongs(self, name: str, size: int, key_id: str, master: Key) -> bool:
        place = place_of(name)
        if place is None:
            return False
        if place.kind in (Kind.CONFIG, Kind.DATA):
            return True
        if place.kind is Kind.KEY:
            return place.name == key_id
        return size <= place.kind.largest and self._is_ours(place, master)

    def _is_ours(self, place: Place, master: Key) -> bool:
        try:
            content = self._objects.get(f"{self._root}{place.kind}/{place.name}")
        except NotFound:
            return True
        if not is_named_after_content(place.name, content):
            return False
        try:
            plain = decrypted(master, content)
            return place.kind is not Kind.LOCK or self._can_go_stale(plain)
        except NotOfThisRepository:
            return False

    def _can_go_stale(self, plain: bytes) -> bool:
        """A lock dated ahead of us would hold for ever."""
        document = document_in(plain, Kind.LOCK.largest)
        if not isinstance(document, dict):
            return False
        try:
            made = datetime.fromisoformat(str(document.get("time")))
        except ValueError:
            return False
        return made.tzinfo is not None and made <= self._now + CLOCK_TOLERANCE
