"""Requests on record: decided once, ended once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, select, tuple_, update

from managed.domain.jobs import JobStatus
from managed.domain.replies import Reply
from managed.domain.requests import Decision, Request, RequestStatus
from managed.storage.database import reading, writing
from managed.storage.replies import put_into_outbox
from managed.storage.request_rows import read_request, request_from_row, with_text
from managed.storage.tables import jobs, requests


class Requests:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, request_id: str) -> Request:
        """With its notes; NotFound."""
        with reading(self._engine) as connection:
            return read_request(connection, request_id)

    def find(
        self,
        *,
        server_id: str | None = None,
        customer_id: str | None = None,
        status: RequestStatus | None = None,
        before: Request | None = None,
        limit: int = 50,
    ) -> Sequence[Request]:
        """Newest first, without their notes; `before` is the last one of the page before."""
        query = with_text().order_by(requests.c.created_at.desc(), requests.c.id.desc())
        if server_id is not None:
            query = query.where(requests.c.server_id == server_id)
        if customer_id is not None:
            query = query.where(requests.c.customer_id == customer_id)
        if status is not None:
            query = query.where(requests.c.status == status.value)
        if before is not None:
            last = (before.created_at, before.request_id)
            query = query.where(tuple_(requests.c.created_at, requests.c.id) < last)
        with reading(self._engine) as connection:
            return [request_from_row(row) for row in connection.execute(query.limit(limit))]

    def locked(self, connection: Connection, request_id: str) -> Request:
        """The request, which nobody else decides until the caller's transaction ends; NotFound."""
        lock = select(requests.c.id).where(requests.c.id == request_id).with_for_update()
        connection.execute(lock)
        return read_request(connection, request_id)

    def approve(
        self,
        connection: Connection,
        request: Request,
        decision: Decision,
        server_id: str,
        customer_id: str | None,
        job_id: str,
    ) -> Request:
        """Record the decision on a locked, open request together with its job."""
        action = decision.action
        _change(
            connection,
            request,
            status=RequestStatus.APPROVED.value,
            server_id=server_id,
            customer_id=customer_id,
            decided_by=decision.by,
            decided_at=decision.at,
            decided_action=action.as_json() if action else None,
            job_id=job_id,
        )
        return read_request(connection, request.request_id)

    def refuse(
        self, connection: Connection, request: Request, decision: Decision, reply: Reply | None
    ) -> Request:
        """Record the decision on a locked, open request together with the answer, if there is to
        be one.
        """
        _change(
            connection,
            request,
            status=RequestStatus.REFUSED.value,
            decided_by=decision.by,
            decided_at=decision.at,
            reason=decision.reason,
        )
        if reply is not None:
            put_into_outbox(connection, reply, decision.at)
        return read_request(connection, request.request_id)

    # -- when their jobs have ended

    def to_end(self, limit: int = 100) -> Sequence[Request]:
        """Approved requests whose jobs have ended, oldest first."""
        final = [status.value for status in JobStatus if status.is_final]
        query = (
            with_text()
            .join(jobs, jobs.c.id == requests.c.job_id)
            .where(requests.c.status == RequestStatus.APPROVED.value, jobs.c.status.in_(final))
            .order_by(requests.c.created_at)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [request_from_row(row) for row in connection.execute(query)]

    def end(self, request: Request, status: RequestStatus, reply: Reply, now: datetime) -> None:
        """Record how it ended together with the answer; nothing if it has ended already."""
        with writing(self._engine) as connection:
            if self.locked(connection, request.request_id).status is RequestStatus.APPROVED:
                _change(connection, request, status=status.value, ended_at=now)
                put_into_outbox(connection, reply, now)


def _change(connection: Connection, request: Request, **values: Any) -> None:
    connection.execute(update(requests).where(requests.c.id == request.request_id).values(**values))
