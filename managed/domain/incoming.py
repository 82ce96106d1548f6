"""What a ticket asks for, judged: whose it is, which server it means, and what is proposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from managed.domain.customers import Customer
from managed.domain.request_rules import proposal_for
from managed.domain.requests import ActionKind, Proposal
from managed.domain.servers import Server
from managed.domain.tickets import Meant, Owned, Ticket, ownership_refusal, server_meant


@dataclass(frozen=True)
class Sender:
    """The customers that have the sender's address, and their servers."""

    customers: Sequence[Customer]
    own: Sequence[Owned]


@dataclass(frozen=True)
class Asked:
    """A request that is not on record yet. `stranger` is why its sender may ask nothing: then it is
    refused as soon as it is there.
    """

    ticket: Ticket
    proposal: Proposal
    server_id: str | None = None
    customer_id: str | None = None
    stranger: str = ""

    @property
    def is_answered_at_once(self) -> bool:
        """Is it a stranger who asks for something? Whoever asks what a server costs, or sends what
        nobody wants, gets no answer of ours.
        """
        asks = self.proposal.action.kind is not ActionKind.NONE or bool(self.ticket.server)
        return bool(self.stranger) and asks


def judged(
    ticket: Ticket, sender: Sender, named: tuple[Server, Customer | None] | None, zone: str
) -> Asked:
    """`named` is the server that the ticket's attribute names, with its customer, if there is such
    a one at all.
    """
    proposal = proposal_for(ticket, zone)
    if not sender.customers:
        return Asked(ticket, proposal, stranger=f"{ticket.sender} is the address of no customer")
    if ticket.server and named is None:
        return Asked(ticket, proposal, stranger=f"there is no server {ticket.server!r}")
    if ticket.server and named is not None:
        server, customer = named
        refusal = ownership_refusal(ticket.sender, server, customer)
        if refusal is not None:
            return Asked(ticket, proposal, server.server_id, stranger=refusal)
    meant = server_meant(ticket, sender.own)
    if not isinstance(meant, Meant):
        only = sender.customers[0].customer_id if len(sender.customers) == 1 else None
        unclear = replace(proposal, why=f"{proposal.why} Which server is not known: {meant}.")
        return Asked(ticket, unclear, customer_id=only)
    owned = meant.owned
    return Asked(
        ticket,
        replace(proposal, why=f"{proposal.why} {meant.why}"),
        owned.server.server_id,
        owned.customer.customer_id,
    )
