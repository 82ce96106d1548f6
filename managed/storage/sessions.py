"""Rescue sessions on record: implements `managed.ports.RescueSessions`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, insert, or_, select, tuple_, update

from managed.domain.errors import NotFound
from managed.domain.jobs import JobStatus
from managed.domain.rescue import RescueSession
from managed.domain.servers import Server, ServerStatus
from managed.storage.database import reading, writing
from managed.storage.rows import server_from_row
from managed.storage.tables import jobs, rescue_sessions, servers


class SessionRecords:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open(self, session: RescueSession) -> RescueSession:
        with writing(self._engine) as connection:
            present = _current(connection, session.server_id)
            if present is not None:
                return present
            connection.execute(
                insert(rescue_sessions).values(
                    id=session.session_id,
                    server_id=session.server_id,
                    job_id=session.job_id,
                    host_key=session.host_key,
                    status_before=session.status_before.value,
                    started_at=session.started_at,
                    expires_at=session.expires_at,
                )
            )
            return session

    def current(self, server_id: str) -> RescueSession | None:
        with reading(self._engine) as connection:
            return _current(connection, server_id)

    def all_open(self) -> Sequence[tuple[Server, RescueSession]]:
        """Every open session, with its server. There are few."""
        query = select(rescue_sessions).where(rescue_sessions.c.ended_at.is_(None))
        with reading(self._engine) as connection:
            found = [_session(row) for row in connection.execute(query)]
            of_these = servers.c.id.in_([session.server_id for session in found])
            rows = connection.execute(select(servers).where(of_these))
            by_id = {row.id: server_from_row(row) for row in rows}
        return [(by_id[session.server_id], session) for session in found]

    def get(self, session_id: str) -> RescueSession:
        """Open or ended; NotFound."""
        query = select(rescue_sessions).where(rescue_sessions.c.id == session_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"there is no rescue session {session_id}", session_id=session_id)
        return _session(row)

    def find(
        self,
        *,
        server_id: str | None = None,
        customer_id: str | None = None,
        is_open: bool | None = None,
        before: RescueSession | None = None,
        limit: int = 50,
    ) -> Sequence[RescueSession]:
        """Newest first; `before` is the last one of the page before."""
        key = (rescue_sessions.c.started_at, rescue_sessions.c.id)
        query = select(rescue_sessions).order_by(*(column.desc() for column in key)).limit(limit)
        if server_id is not None:
            query = query.where(rescue_sessions.c.server_id == server_id)
        if customer_id is not None:
            own = select(servers.c.id).where(servers.c.customer_id == customer_id)
            query = query.where(rescue_sessions.c.server_id.in_(own))
        if is_open is not None:
            ended = rescue_sessions.c.ended_at.is_not(None)
            query = query.where(~ended if is_open else ended)
        if before is not None:
            query = query.where(tuple_(*key) < (before.started_at, before.session_id))
        with reading(self._engine) as connection:
            return [_session(row) for row in connection.execute(query)]

    def keep_until(self, session_id: str, expires_at: datetime) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(rescue_sessions)
                .where(rescue_sessions.c.id == session_id)
                .values(expires_at=expires_at)
            )

    def end(self, session_id: str, now: datetime) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(rescue_sessions)
                .where(rescue_sessions.c.id == session_id, rescue_sessions.c.ended_at.is_(None))
                .values(ended_at=now)
            )

    def expired(self, now: datetime) -> Sequence[RescueSession]:
        """Open sessions past their time, or that outlived the job which they were to end with, on
        servers that no job works on.
        """
        busy = select(jobs.c.server_id).where(jobs.c.holds_server)
        final = [status.value for status in JobStatus if status.is_final]
        ended = select(jobs.c.id).where(jobs.c.status.in_(final))
        deleted = select(servers.c.id).where(servers.c.status == ServerStatus.DELETED.value)
        query = select(rescue_sessions).where(
            rescue_sessions.c.ended_at.is_(None),
            or_(
                rescue_sessions.c.expires_at <= now,
                and_(rescue_sessions.c.expires_at.is_(None), rescue_sessions.c.job_id.in_(ended)),
            ),
            rescue_sessions.c.server_id.not_in(busy.union_all(deleted)),
        )
        with reading(self._engine) as connection:
            return [_session(row) for row in connection.execute(query)]


def _current(connection: Connection, server_id: str) -> RescueSession | None:
    query = select(rescue_sessions).where(
        rescue_sessions.c.server_id == server_id, rescue_sessions.c.ended_at.is_(None)
    )
    row = connection.execute(query).one_or_none()
    return _session(row) if row else None


def _session(row: Row[Any]) -> RescueSession:
    return RescueSession(
        session_id=row.id,
        server_id=row.server_id,
        job_id=row.job_id,
        host_key=row.host_key,
        status_before=ServerStatus(row.status_before),
        started_at=row.started_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
    )
