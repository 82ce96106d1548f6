"""What helpdesks deliver becomes requests: each delivery and each article once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, func, insert, or_, select
from sqlalchemy.exc import IntegrityError

from managed.domain.customers import Customer
from managed.domain.errors import KeyReused
from managed.domain.incoming import Asked, Sender
from managed.domain.replies import UNKNOWN_SENDER, reply_to
from managed.domain.requests import RequestStatus
from managed.domain.servers import Server, ServerStatus
from managed.domain.tickets import Owned, Ticket, is_same_address
from managed.storage.database import reading, writing
from managed.storage.replies import put_into_outbox
from managed.storage.request_rows import read_request
from managed.storage.rows import server_from_row
from managed.storage.tables import customers, deliveries, request_articles, requests, servers

_LOST_ONCE: Final = ("the delivery", "the article", "the ticket's open request")
"""What can be stored by another at the same moment, each once."""


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


class Intake:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def sender(self, address: str) -> Sender:
        """Who has this e-mail address."""
        query = select(customers).where(func.lower(customers.c.email) == address.strip().lower())
        with reading(self._engine) as connection:
            found = [
                Customer(row.id, row.name, row.email)
                for row in connection.execute(query.order_by(customers.c.name))
                if is_same_address(address, row.email)
            ]
            own = [owned for one in found for owned in _servers_of(connection, one)]
        return Sender(found, own)

    def named_server(self, reference: str) -> tuple[Server, Customer | None] | None:
        """The server of this id or name, with its customer."""
        query = select(servers).where(
            or_(servers.c.id == reference, servers.c.name == reference),
            servers.c.status != ServerStatus.DELETED.value,
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            owner = connection.execute(
                select(customers).where(customers.c.id == row.customer_id)
            ).one_or_none()
        customer = Customer(owner.id, owner.name, owner.email) if owner else None
        return server_from_row(row), customer

    def earlier(self, delivery: Delivery) -> Taken | None:
        """What the same delivery led to before; KeyReused when its body was another one."""
        with reading(self._engine) as connection:
            return _earlier(connection, delivery)

    def take_in(self, delivery: Delivery, asked: Asked | None, now: datetime) -> Taken:
        """Record a delivery and what follows on it, once: the same delivery, and the same article
        in another one, change nothing. While a request of the ticket is open, its later articles
        are notes to it. None: there is nothing to ask.
        """
        for _ in _LOST_ONCE:
            # Another may be first at the same moment: then what it stored is there to be found.
            with suppress(IntegrityError):
                return self._take_in(delivery, asked, now)
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
    # Locked: whoever decides on it right now decides without this article, which then is anew.
    query = select(requests.c.id).where(is_of_ticket, is_open).with_for_update()
    present = connection.execute(query).scalar()
    if present is not None:
        _add_article(connection, ticket, present, is_note=True)
        return Taken(Outcome.NOTE, present)
    answered = connection.execute(
        select(requests.c.id).where(is_of_ticket, requests.c.status == RequestStatus.REFUSED.value)
    ).first()
    request_id = _add_request(connection, asked, now)
    _add_article(connection, ticket, request_id, is_note=False)
    if asked.is_answered_at_once and answered is None:
        # Once per ticket: an answer to the answer of a machine would go on without end.
        reply = reply_to(read_request(connection, request_id), UNKNOWN_SENDER)
        put_into_outbox(connection, reply, now)
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
