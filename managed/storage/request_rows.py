"""Rows to requests: how a request with the article that it was made of lies in tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, select

from managed.domain.errors import NotFound
from managed.domain.requests import (
    Action,
    ActionKind,
    Decision,
    Note,
    Proposal,
    Request,
    RequestStatus,
)
from managed.domain.tickets import Ticket
from managed.storage.tables import request_articles, requests


def with_text() -> Select[Any]:
    """Requests with the article that each was made of."""
    own = and_(
        request_articles.c.request_id == requests.c.id, request_articles.c.is_note.is_(False)
    )
    article = request_articles.c
    return select(
        requests, article.article_id, article.sender, article.text, article.written_at
    ).join(request_articles, own)


def read_request(connection: Connection, request_id: str) -> Request:
    """With its notes; NotFound."""
    query = with_text().where(requests.c.id == request_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(
            f"there is no request {request_id}",
            hint="GET /v1/requests lists them.",
            request_id=request_id,
        )
    later = (
        select(request_articles)
        .where(request_articles.c.request_id == request_id, request_articles.c.is_note)
        .order_by(request_articles.c.written_at, request_articles.c.article_id)
    )
    notes = [
        Note(note.article_id, note.sender, note.text, note.written_at)
        for note in connection.execute(later)
    ]
    return request_from_row(row, tuple(notes))


def request_from_row(row: Row[Any], notes: tuple[Note, ...] = ()) -> Request:
    ticket = Ticket(
        ticket_id=row.ticket_id,
        number=row.ticket_number,
        title=row.title,
        article_id=row.article_id,
        text=row.text,
        sender=row.sender,
        server=row.server_attribute,
        by_email=row.by_email,
        written_at=row.written_at,
    )
    decision = None
    if row.decided_at is not None:
        action = _action(row.decided_action) if row.decided_action else None
        decision = Decision(row.decided_by, row.decided_at, action, row.reason)
    return Request(
        request_id=row.id,
        ticket=ticket,
        proposal=Proposal(_action(row.proposed_action), row.rule, row.why),
        status=RequestStatus(row.status),
        created_at=row.created_at,
        server_id=row.server_id,
        customer_id=row.customer_id,
        decision=decision,
        job_id=row.job_id,
        ended_at=row.ended_at,
        notes=notes,
    )


def _action(document: Mapping[str, Any]) -> Action:
    as_of = document["as_of"]
    return Action(
        ActionKind(document["kind"]),
        tuple(document["paths"]),
        datetime.fromisoformat(as_of) if as_of else None,
    )
