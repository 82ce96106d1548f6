"""The catalogue of backups: implements `managed.ports.Snapshots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, insert, select, update

from managed.domain.errors import Json, NotFound
from managed.domain.snapshots import SnapshotRecord
from managed.storage.database import reading, writing
from managed.storage.tables import snapshots


class Catalogue:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, record: SnapshotRecord) -> None:
        with writing(self._engine) as connection:
            known = select(snapshots.c.id).where(snapshots.c.id == record.snapshot_id)
            if connection.execute(known).scalar() is not None:
                return
            connection.execute(
                insert(snapshots).values(
                    id=record.snapshot_id,
                    server_id=record.server_id,
                    job_id=record.job_id,
                    time=record.time,
                    files=record.files,
                    size=record.size,
                    manifest_key=record.manifest_key,
                    layout_key=record.layout_key,
                    health=dict(record.health) if record.health is not None else None,
                )
            )

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


def _record(row: Row[Any]) -> SnapshotRecord:
    return SnapshotRecord(
        snapshot_id=row.id,
        server_id=row.server_id,
        job_id=row.job_id,
        time=row.time,
        files=row.files,
        size=row.size,
        manifest_key=row.manifest_key,
        layout_key=row.layout_key,
        verified_at=row.verified_at,
        verification=row.verification,
        health=row.health,
    )
