"""The control plane's copies: taking one, listing, letting old ones go, bringing one back."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine, func, select

from managed import VERSION
from managed.domain.copies import (
    CopyManifest,
    KeepRule,
    copies_to_forget,
    copy_name,
    is_abandoned,
)
from managed.domain.errors import Conflict, CopyDamaged, ManagedError, NotFound, SecretUnreadable
from managed.ports import ObjectStore
from managed.storage.copies.findings import Findings, findings
from managed.storage.copies.lines import TableDump, count_rows, cut
from managed.storage.copies.restoring import Restored, restore
from managed.storage.copies.sealing import CopyKeys, master_key_mark, new_salt
from managed.storage.copies.shelf import OpenedCopy, Shelf
from managed.storage.copies.state import SelfBackupRecord
from managed.storage.database import reading_snapshot
from managed.storage.schema import known_revisions, present_revision
from managed.storage.tables import events
from managed.storage.vault import require_openable

PART_BYTES: Final = 16 * 1024**2


@dataclass(frozen=True)
class ListedCopy:
    """A copy in the bucket; without a manifest it cannot be used, and `problem` says why."""

    name: str
    is_finished: bool
    manifest: CopyManifest | None
    problem: str = ""


class ControlPlaneCopies:
    """`part_bytes` is about how much of the database is in memory at once."""

    def __init__(
        self,
        engine: Engine,
        objects: ObjectStore,
        master_key: bytes,
        clock: Callable[[], datetime],
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._master_key = master_key
        self._clock = clock
        self._part_bytes = part_bytes
        self._record = SelfBackupRecord(engine)
        self._shelf = Shelf(objects, master_key)

    @property
    def mark(self) -> str:
        """Tells this installation's master key from others."""
        return master_key_mark(self._master_key)

    def take(self) -> CopyManifest:
        """A copy of the database as it is now, that has been read back and compared. A failure is
        put on record and raised; what it leaves in the bucket does not count. SecretUnreadable, and
        nothing is written, when our master key does not open what is sealed in the database: it
        would be of no use to whoever restores the copy.
        """
        began = self._clock()
        name = copy_name(began, secrets.token_hex(4))
        try:
            manifest = self._take(name, began)
        except Exception as error:
            said = error.message if isinstance(error, ManagedError) else type(error).__name__
            with suppress(ManagedError):
                self._record.note_failure(said, self._clock())
            with suppress(ManagedError):
                self._shelf.forget(name)
            raise
        self._record.note_good(name, began, self._clock())
        return manifest

    def list(self) -> tuple[ListedCopy, ...]:
        """Oldest first."""
        return tuple(self._listed(name, done) for name, done in self._shelf.names().items())

    def newest(self) -> str:
        """The name of the newest finished copy; NotFound when there is none."""
        finished = [name for name, is_finished in self._shelf.names().items() if is_finished]
        if not finished:
            raise NotFound(
                "there is no copy of a control plane in the bucket",
                hint="Look at MANAGED_S3_ENDPOINT and MANAGED_S3_BUCKET.",
            )
        return finished[-1]

    def prune(self, rule: KeepRule) -> tuple[str, ...]:
        """Remove copies that the rule keeps no longer, and what nobody will finish; their names.
        Copies that cannot be opened stay for somebody to look at.
        """
        now, found = self._clock(), self.list()
        good = [copy.name for copy in found if copy.manifest is not None]
        gone = [
            copy.name for copy in found if not copy.is_finished and is_abandoned(copy.name, now)
        ]
        gone += copies_to_forget(good, rule, now)
        for name in gone:
            self._shelf.forget(name)
        return tuple(sorted(gone))

    def restore(self, name: str, *, replace: bool) -> Restored:
        """See `restoring.restore`; a copy that cannot be opened is told before all else."""
        copy = self._shelf.open(name)
        return restore(self._engine, self._shelf, copy, self._clock(), replace=replace)

    def findings(self) -> Findings:
        """What the bucket knows and the database does not; to be asked after a restore."""
        return findings(self._engine, self._objects)

    def _take(self, name: str, began: datetime) -> CopyManifest:
        keys = CopyKeys(self._master_key, name, new_salt())
        digest, plain_size, sealed_size, parts = hashlib.sha256(), 0, 0, 0
        with reading_snapshot(self._engine) as connection:
            schema = _require_present_schema(connection)
            require_openable(connection, self._master_key)
            first_event_at = connection.execute(select(func.min(events.c.at))).scalar()
            dump = TableDump(connection)
            for parts, plain in enumerate(cut(dump.lines(), self._part_bytes), start=1):
                digest.update(plain)
                plain_size += len(plain)
                sealed_size += self._shelf.put_part(keys, name, parts - 1, plain)
        manifest = CopyManifest(
            name=name,
            taken_at=began,
            managed_version=VERSION,
            engine=self._engine.dialect.name,
            schema=schema,
            rows=dump.rows,
            first_event_at=first_event_at,
            parts=parts,
            plain_size=plain_size,
            sealed_size=sealed_size,
            sha256=digest.hexdigest(),
        )
        return self._finish(OpenedCopy(manifest, keys))

    def _finish(self, copy: OpenedCopy) -> CopyManifest:
        """Read everything back before the manifest makes it count, and the manifest after."""
        if count_rows(self._shelf.parts(copy)) != copy.manifest.rows:
            raise CopyDamaged(f"the copy {copy.manifest.name} came back with other rows")
        self._shelf.put_manifest(copy)
        if self._shelf.open(copy.manifest.name).manifest != copy.manifest:
            raise CopyDamaged(f"the manifest of {copy.manifest.name} came back as another one")
        return copy.manifest

    def _listed(self, name: str, is_finished: bool) -> ListedCopy:
        if not is_finished:
            return ListedCopy(name, False, None, "not finished")
        try:
            return ListedCopy(name, True, self._shelf.open(name).manifest)
        except (SecretUnreadable, CopyDamaged) as error:
            return ListedCopy(name, True, None, error.message)


def _require_present_schema(connection: Connection) -> str:
    """A copy holds the tables that this version knows: they have to be the database's."""
    present, newest = present_revision(connection), known_revisions()[0]
    if present != newest:
        raise Conflict(
            f"the database has schema {present}; this version of managed copies schema {newest}",
            hint="Start the service of this version first: it brings the schema forward.",
        )
    return newest
