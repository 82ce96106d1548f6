"""The catalogue of backups: implements `managed.ports.Snapshots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, insert, select, update

from managed.domain.errors import EvidenceMissing, Json, NotFound
from managed.domain.snapshots import KeptObject, SnapshotRecord
from managed.storage.database import reading, writing
from managed.storage.tables import snapshots


class Catalogue:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, record: SnapshotRecord) -> None:
        with writing(self._engine) as connection:
            query = select(snapshots).where(snapshots.c.id == record.snapshot_id)
            row = connection.execute(query).one_or_none()
            if row is not None:
                return _require_same(_record(row), record)
            connection.execute(
                insert(snapshots).values(
                    id=record.snapshot_id,
                    server_id=record.server_id,
                    job_id=record.job_id,
                    time=record.time,
                    files=record.files,
                    size=record.size,
                    manifest_key=record.manifest.key,
                    manifest_sha256=record.manifest.sha256,
                    layout_key=record.layout.key,
                    layout_sha256=record.layout.sha256,
                    health=dict(record.health) if record.health is not None else None,
                    paths=list(record.paths) or None,
                )
            )
            return None

    def mark_verified(self, snapshot_id: str, evidence: Mapping[str, Json], now: datetime) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(snapshots)
                .where(snapshots.c.id == snapshot_id)
                .values(verified_at=now, verification=dict(evidence))
            )

    def get(self, snapshot_id: str) -> SnapshotRecord:
        query = select(snapshots).where(snapshots.c.id == snapshot_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"there is no snapshot {snapshot_id}", snapshot_id=snapshot_id)
        return _record(row)

    def of_server(self, server_id: str) -> Sequence[SnapshotRecord]:
        query = (
            select(snapshots)
            .where(snapshots.c.server_id == server_id)
            .order_by(snapshots.c.time.desc())
        )
        with reading(self._engine) as connection:
            return [_record(row) for row in connection.execute(query)]


def _require_same(known: SnapshotRecord, record: SnapshotRecord) -> None:
    if replace(known, verified_at=None, verification=None) != record:
        raise EvidenceMissing(
            f"snapshot {record.snapshot_id} is on record already, with other evidence",
            snapshot_id=record.snapshot_id,
            job_id=known.job_id,
        )


def _record(row: Row[Any]) -> SnapshotRecord:
    return SnapshotRecord(
        snapshot_id=row.id,
        server_id=row.server_id,
        job_id=row.job_id,
        time=row.time,
        files=row.files,
        size=row.size,
        manifest=KeptObject(row.manifest_key, row.manifest_sha256),
        layout=KeptObject(row.layout_key, row.layout_sha256),
        verified_at=row.verified_at,
        verification=row.verification,
        health=row.health,
        paths=tuple(row.paths or ()),
    )
