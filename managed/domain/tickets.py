"""What reaches us of a helpdesk's ticket, and whose server it is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from managed.domain.customers import Customer
from managed.domain.servers import Server


@dataclass(frozen=True)
class Ticket:
    """One article that a customer wrote to a ticket: plain text, bounded, nothing invisible in it.

    `server` is what the ticket's server attribute holds (id or name, may be empty). `by_email`
    says how it came, and so how an answer reaches the sender.
    """

    ticket_id: int
    number: str
    title: str
    article_id: int
    text: str
    sender: str
    server: str
    by_email: bool
    written_at: datetime


@dataclass(frozen=True)
class Unread:
    """An article that asks nothing of us, and why."""

    reason: str


@dataclass(frozen=True)
class Owned:
    """A server, and the customer whose it is."""

    server: Server
    customer: Customer


@dataclass(frozen=True)
class Meant:
    """The server that a ticket is about, and what says so."""

    owned: Owned
    why: str


def ownership_refusal(sender: str, server: Server, customer: Customer | None) -> str | None:
    """Why this sender may ask nothing for the server, or None. `customer` is the server's."""
    if customer is None or server.customer_id != customer.customer_id:
        return f"{server.name} belongs to no customer"
    if not is_same_address(sender, customer.email):
        return f"{sender} is not the address of {customer.name}, whose server {server.name} is"
    return None


def is_same_address(one: str, other: str) -> bool:
    """Capitals of ASCII do not matter. Others do: what they become in small letters may be ASCII,
    and then a stranger's address would be a customer's.
    """
    return bool(one) and _lowered(one) == _lowered(other)


def server_meant(ticket: Ticket, own: Sequence[Owned]) -> Meant | str:
    """Which of the sender's own servers the ticket is about, or why that is not known. The
    attribute counts alone; without it, a name in the text; without that, the only server.
    """
    by_name = {owned.server.name: owned for owned in own}
    by_id = {owned.server.server_id: owned for owned in own}
    if ticket.server:
        found = by_id.get(ticket.server) or by_name.get(ticket.server)
        if found is None:
            return f"the sender has no server {ticket.server!r}, which the ticket names"
        return Meant(found, f"The ticket's server attribute says {found.server.name}.")
    words = set(re.findall(r"[a-z0-9-]+", f"{ticket.title}\n{ticket.text}".lower()))
    named = [name for name in by_name if name in words]
    if len(named) == 1:
        return Meant(by_name[named[0]], f"The text names the server {named[0]}.")
    if named:
        return f"the text names several servers of the sender's: {', '.join(sorted(named))}"
    if len(own) == 1:
        return Meant(own[0], f"{own[0].server.name} is the sender's only server.")
    return "the ticket names no server"


def _lowered(address: str) -> str:
    return re.sub("[A-Z]+", lambda capitals: capitals.group().lower(), address.strip())
