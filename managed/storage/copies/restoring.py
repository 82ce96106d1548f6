"""Bringing a copy back into a database: in one transaction, so that a restore that is cut off has
changed nothing and can be run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnClause, Connection, Engine, column, func, inspect, select, table

from managed.domain.copies import CopyManifest
from managed.domain.errors import CopyDamaged
from managed.storage.copies.aftermath import (
    EndedJob,
    end_open_jobs,
    enter_into_the_log,
    forget_who_was_let_in,
    pause_everything,
    servers_in_rescue,
)
from managed.storage.copies.lines import load
from managed.storage.copies.room import copy_aside, make_room, tables_with_rows
from managed.storage.copies.shelf import OpenedCopy, Shelf
from managed.storage.copies.state import note_good_within
from managed.storage.database import take_time, writing
from managed.storage.events import make_empty_partitions
from managed.storage.schema import known_revisions, upgrade


@dataclass(frozen=True)
class Restored:
    """What a restore has done. `set_aside` says where the rows that were there before are now
    (empty: there were none).
    """

    manifest: CopyManifest
    set_aside: str
    ended_jobs: tuple[EndedJob, ...]
    in_rescue: tuple[str, ...]


def restore(
    engine: Engine, shelf: Shelf, copy: OpenedCopy, now: datetime, *, replace: bool
) -> Restored:
    """Restore the copy, bring its schema forward and leave everything paused, with no job open.

    Conflict when the database holds rows that are not to be replaced, or a newer version made the
    copy; CopyDamaged when it is not what was put into the bucket. Then nothing was changed.
    """
    manifest = copy.manifest
    _require_known_schema(manifest)
    set_aside = ""
    if replace and engine.dialect.name == "sqlite" and tables_with_rows(engine):
        set_aside = copy_aside(engine, now)
    with writing(engine) as connection:
        take_time(connection)
        set_aside = make_room(connection, now, replace=replace) or set_aside
        upgrade(connection, manifest.schema)
        _prepare_partitions(connection, manifest, now)
        load(connection, shelf.parts(copy))
        _require_rows(connection, manifest.rows)
        advance_sequences(connection, manifest.rows)
        upgrade(connection)
        pause_everything(connection, manifest.taken_at, now)
        forget_who_was_let_in(connection, now)
        ended = end_open_jobs(connection, manifest.taken_at, now)
        enter_into_the_log(connection, manifest.name, now)
        note_good_within(connection, manifest.name, manifest.taken_at, now)
        return Restored(manifest, set_aside, ended, servers_in_rescue(connection))


def _require_known_schema(manifest: CopyManifest) -> None:
    if manifest.schema not in known_revisions():
        raise CopyDamaged(
            f"the copy {manifest.name} has schema {manifest.schema} of managed"
            f" {manifest.managed_version}; this version knows none newer than"
            f" {known_revisions()[0]}",
            hint="Restore it with the version of managed that made it, or a newer one.",
        )


def _prepare_partitions(connection: Connection, manifest: CopyManifest, now: datetime) -> None:
    if connection.dialect.name == "postgresql" and manifest.first_event_at is not None:
        make_empty_partitions(connection, manifest.first_event_at, now)


def _require_rows(connection: Connection, expected: Mapping[str, int]) -> None:
    for name, count in expected.items():
        found = connection.execute(select(func.count()).select_from(table(name))).scalar_one()
        if found != count:
            raise CopyDamaged(f"{name} has {found} rows; the copy's manifest tells of {count}")


def advance_sequences(connection: Connection, names: Iterable[str]) -> None:
    """Numbers that PostgreSQL gives go on after the highest one that was restored."""
    if connection.dialect.name != "postgresql":
        return
    quote = connection.dialect.identifier_preparer.quote
    for name in names:
        for one in inspect(connection).get_columns(name):
            sequence = connection.execute(
                select(func.pg_get_serial_sequence(quote(name), one["name"]))
            ).scalar_one()
            if sequence is not None:
                number: ColumnClause[int] = column(one["name"])
                highest = select(func.max(number)).select_from(table(name))
                connection.execute(select(func.setval(sequence, highest.scalar_subquery())))
