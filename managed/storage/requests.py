"""Requests on record: taken in once, decided once, ended once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from managed.domain.customers import Customer
from managed.domain.errors import KeyReused, NotFound
from managed.domain.jobs import JobStatus
from managed.domain.replies import UNKNOWN_SENDER, Reply, reply_to
from managed.domain.requests import (
    Action,
    ActionKind,
    Decision,
    Note,
    Proposal,
    Request,
    RequestStatus,
)
from managed.domain.servers import ServerStatus
from managed.domain.tickets import Owned, Ticket, is_same_address
from managed.storage.database import reading, writing
from managed.storage.replies import put_into_outbox
from managed.storage.rows import server_from_row
from managed.storage.tables import (
    customers,
    deliveries,
    jobs,
    request_articles,
    requests,
    servers,
)


class Outcome(StrEnum):
    """What a delivery led to: a new request, a note to an open one, nothing (`known`: the article
    came before; `unread`: it asks nothing of us).
    """

    REQUEST = "request"
    NOTE = "note"
    KNOWN = "known"
    UNREAD = "unread"


@dataclass(frozen=True)
class Delivery:
    """One call of the helpdesk: its unique id, and the SHA-256 of its body."""

    delivery_id: str
    body_sha256: str


@dataclass(frozen=True)
class Taken:
    outcome: Outcome
    request_id: str | None = None


@dataclass(frozen=True)
class Asked:
    """What a ticket asks for, judged: a request that is not on record yet. `stranger` is why its
    sender may ask nothing; then the request is refused as soon as it is there.
    """

    ticket: Ticket
    proposal: Proposal
    server_id: str | None = None
    customer_id: str | None = None
    stranger: str = ""


class Requests:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- from the helpdesk

    def owned_by(self, sender: str) -> tuple[Sequence[Customer], Sequence[Owned]]:
        """The customers with this e-mail address, and their servers under management."""
        query = select(customers).where(func.lower(customers.c.email) == sender.strip().lower())
        with reading(self._engine) as connection:
            found = [
                Customer(row.id, row.name, row.email)
                for row in connection.execute(query)
                if is_same_address(sender, row.email)
            ]
            return found, [o for customer in found for o in _servers_of(connection, customer)]

    def earlier(self, delivery: Delivery) -> Taken | None:
        """What the same delivery led to before; KeyReused when its body was another one."""
        with reading(self._engine) as connection:
            return _earlier(connection, delivery)

    def take_in(self, delivery: Delivery, asked: Asked | None, now: datetime) -> Taken:
        """Record a delivery and what follows on it, once: the same delivery, and the same article
        in another one, change nothing. While a request of the ticket is open, its later articles
        are notes to it. None: there is nothing to ask.
        """
        try:
            return self._take_in(delivery, asked, now)
        except IntegrityError:
            # The same came at the same moment, and was first: now it is there to be found.
            return self._take_in(delivery, asked, now)

    def _take_in(self, delivery: Delivery, asked: Asked | None, now: datetime) -> Taken:
        with writing(self._engine) as connection:
            earlier = _earlier(connection, delivery)
            if earlier is not None:
                return earlier
            taken = _take(connection, asked, now) if asked else Taken(Outcome.UNREAD)
            connection.execute(
                insert(deliveries).values(
                    id=delivery.delivery_id,
                    body_sha256=delivery.body_sha256,
                    outcome=taken.outcome.value,
                    request_id=taken.request_id,
                    received_at=now,
                )
            )
            return taken

    def forget_deliveries(self, before: datetime) -> None:
        """Articles stay known, so what comes again later still changes nothing."""
        with writing(self._engine) as connection:
            connection.execute(delete(deliveries).where(deliveries.c.received_at < before))

    # -- for people

    def get(self, request_id: str) -> Request:
        """With its notes; NotFound."""
        with reading(self._engine) as connection:
            return _read(connection, _with_text().where(requests.c.id == request_id), request_id)

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
        query = _with_text().order_by(requests.c.created_at.desc(), requests.c.id.desc())
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
            return [_request(row) for row in connection.execute(query.limit(limit))]

    def locked(self, connection: Connection, request_id: str) -> Request:
        """The request, which nobody else decides until the caller's transaction ends; NotFound."""
        lock = select(requests.c.id).where(requests.c.id == request_id).with_for_update()
        connection.execute(lock)
        return _read(connection, _with_text().where(requests.c.id == request_id), request_id)

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
        return self._again(connection, request)

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
        return self._again(connection, request)

    # -- when their jobs have ended

    def to_end(self, limit: int = 100) -> Sequence[Request]:
        """Approved requests whose jobs have ended, oldest first."""
        final = [status.value for status in JobStatus if status.is_final]
        query = (
            _with_text()
            .join(jobs, jobs.c.id == requests.c.job_id)
            .where(requests.c.status == RequestStatus.APPROVED.value, jobs.c.status.in_(final))
            .order_by(requests.c.created_at)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [_request(row) for row in connection.execute(query)]

    def end(self, request: Request, status: RequestStatus, reply: Reply, now: datetime) -> None:
        """Record how it ended together with the answer; nothing if it has ended already."""
        with writing(self._engine) as connection:
            if self.locked(connection, request.request_id).status is RequestStatus.APPROVED:
                _change(connection, request, status=status.value, ended_at=now)
                put_into_outbox(connection, reply, now)

    def _again(self, connection: Connection, request: Request) -> Request:
        query = _with_text().where(requests.c.id == request.request_id)
        return _read(connection, query, request.request_id)


def _servers_of(connection: Connection, customer: Customer) -> Sequence[Owned]:
    query = (
        select(servers)
        .where(servers.c.customer_id == customer.customer_id)
        .where(servers.c.status != ServerStatus.DELETED.value)
        .order_by(servers.c.name)
    )
    return [Owned(server_from_row(row), customer) for row in connection.execute(query)]


def _earlier(connection: Connection, delivery: Delivery) -> Taken | None:
    query = select(deliveries).where(deliveries.c.id == delivery.delivery_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.body_sha256 != delivery.body_sha256:
        raise KeyReused(
            "this delivery came with another body before",
            hint="The helpdesk gives each delivery an id of its own.",
        )
    return Taken(Outcome(row.outcome), row.request_id)


def _take(connection: Connection, asked: Asked, now: datetime) -> Taken:
    ticket = asked.ticket
    known = connection.execute(
        select(request_articles.c.request_id).where(
            request_articles.c.ticket_id == ticket.ticket_id,
            request_articles.c.article_id == ticket.article_id,
        )
    ).scalar()
    if known is not None:
        return Taken(Outcome.KNOWN, known)
    is_of_ticket = requests.c.ticket_id == ticket.ticket_id
    is_open = requests.c.status == RequestStatus.OPEN.value
    present = connection.execute(select(requests.c.id).where(is_of_ticket, is_open)).scalar()
    if present is not None:
        _add_article(connection, ticket, present, is_note=True)
        return Taken(Outcome.NOTE, present)
    answered = connection.execute(
        select(requests.c.id).where(is_of_ticket, requests.c.status == RequestStatus.REFUSED.value)
    ).first()
    request_id = _add_request(connection, asked, now)
    _add_article(connection, ticket, request_id, is_note=False)
    if asked.stranger and answered is None:
        # Once per ticket: an answer to the answer of a machine would go on without end.
        request = _read(connection, _with_text().where(requests.c.id == request_id), request_id)
        put_into_outbox(connection, reply_to(request, UNKNOWN_SENDER), now)
    return Taken(Outcome.REQUEST, request_id)


def _add_request(connection: Connection, asked: Asked, now: datetime) -> str:
    request_id = str(uuid.uuid4())
    ticket, proposal = asked.ticket, asked.proposal
    values: dict[str, Any] = {
        "id": request_id,
        "ticket_id": ticket.ticket_id,
        "ticket_number": ticket.number,
        "title": ticket.title,
        "server_attribute": ticket.server,
        "by_email": ticket.by_email,
        "server_id": asked.server_id,
        "customer_id": asked.customer_id,
        "proposed_action": proposal.action.as_json(),
        "rule": proposal.rule,
        "why": proposal.why,
        "status": RequestStatus.OPEN.value,
        "created_at": now,
    }
    if asked.stranger:
        values |= {
            "status": RequestStatus.REFUSED.value,
            "decided_by": "the check of the sender",
            "decided_at": now,
            "reason": asked.stranger,
        }
    connection.execute(insert(requests).values(**values))
    return request_id


def _add_article(connection: Connection, ticket: Ticket, request_id: str, *, is_note: bool) -> None:
    connection.execute(
        insert(request_articles).values(
            ticket_id=ticket.ticket_id,
            article_id=ticket.article_id,
            request_id=request_id,
            is_note=is_note,
            sender=ticket.sender,
            text=ticket.text,
            written_at=ticket.written_at,
        )
    )


def _change(connection: Connection, request: Request, **values: Any) -> None:
    connection.execute(update(requests).where(requests.c.id == request.request_id).values(**values))


def _with_text() -> Select[Any]:
    """Requests with the article that each was made of."""
    own = and_(
        request_articles.c.request_id == requests.c.id, request_articles.c.is_note.is_(False)
    )
    article = request_articles.c
    return select(
        requests, article.article_id, article.sender, article.text, article.written_at
    ).join(request_articles, own)


def _read(connection: Connection, query: Select[Any], request_id: str) -> Request:
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
    return _request(row, tuple(notes))


def _request(row: Row[Any], notes: tuple[Note, ...] = ()) -> Request:
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
