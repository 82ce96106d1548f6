"""Whose a server is, which one a ticket means, and what is read of Zammad's payload."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from managed.domain.customers import Customer
from managed.domain.errors import InvalidInput
from managed.domain.secrets import Secret
from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.domain.tickets import (
    Meant,
    Owned,
    Ticket,
    Unread,
    is_same_address,
    ownership_refusal,
    server_meant,
)
from managed.domain.zammad import is_signed, ticket_of
from managed.lab.helpdesk_stand_in import payload, signature

ANNA = Customer("c-anna", "Anna Ltd", "Anna@Example.org")
KELVIN = "\N{KELVIN SIGN}"


def server(name: str, customer_id: str | None = ANNA.customer_id) -> Server:
    return Server(
        server_id=f"id-of-{name}",
        name=name,
        origin=ServerOrigin.ENROLLED,
        status=ServerStatus.ACTIVE,
        address="192.0.2.1",
        ssh_port=22,
        ssh_user="root",
        host_key="",
        operating_system="",
        customer_id=customer_id,
    )


def ticket(text: str = "help", attribute: str = "") -> Ticket:
    written = datetime(2026, 11, 24, tzinfo=UTC)
    return Ticket(1, "1", "Help", 1, text, "anna@example.org", attribute, True, written)


@pytest.mark.parametrize("sender", ["anna@example.org", "ANNA@EXAMPLE.ORG", " Anna@Example.org "])
def test_the_customer_of_the_server_may_ask(sender: str) -> None:
    assert ownership_refusal(sender, server("shop"), ANNA) is None


@pytest.mark.parametrize(
    "sender",
    [
        "",
        "anna@example.org.evil.example",
        "anna@example.com",
        "anna+x@example.org",
        "xanna@example.org",
        "anna@example.org, mallory@example.com",
        "Anna <anna@example.org>",
        "ann\u0430@example.org",
        "anna@example.org\u200b",
    ],
)
def test_nobody_else_may(sender: str) -> None:
    assert ownership_refusal(sender, server("shop"), ANNA) is not None


def test_letters_that_only_become_ascii_are_others() -> None:
    assert KELVIN.lower() == "k"
    assert not is_same_address(f"mi{KELVIN}e@example.org", "mike@example.org")
    assert not is_same_address("\N{LATIN SMALL LETTER LONG S}am@example.org", "sam@example.org")
    assert not is_same_address("", "")


def test_a_server_of_nobody_or_of_another_is_nobodys_to_ask_for() -> None:
    assert "no customer" in str(ownership_refusal(ANNA.email, server("shop", None), None))
    assert ownership_refusal(ANNA.email, server("shop", "c-bea"), ANNA) is not None


OWN = [Owned(server("shop"), ANNA), Owned(server("shop-2"), ANNA)]


@pytest.mark.parametrize(
    ("asked", "name", "why"),
    [
        (ticket(attribute="shop"), "shop", "attribute"),
        (ticket(attribute="id-of-shop-2"), "shop-2", "attribute"),
        (ticket("the Shop-2, please", attribute="shop"), "shop", "attribute"),
        (ticket("the Shop is down."), "shop", "names the server"),
        (ticket("(shop-2)"), "shop-2", "names the server"),
    ],
)
def test_the_attribute_counts_then_a_name_in_the_text(asked: Ticket, name: str, why: str) -> None:
    found = server_meant(asked, OWN)
    assert isinstance(found, Meant)
    assert found.owned.server.name == name
    assert why in found.why


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (ticket(attribute="blog"), "has no server 'blog'"),
        (ticket("shop and shop-2"), "several servers"),
        (ticket("webshop, shop-22, shopping"), "names no server"),
    ],
)
def test_otherwise_it_is_not_known(asked: Ticket, why: str) -> None:
    found = server_meant(asked, OWN)
    assert isinstance(found, str)
    assert why in found


def test_the_only_server_is_meant() -> None:
    found = server_meant(ticket(), OWN[:1])
    assert isinstance(found, Meant)
    assert "only server" in found.why


# ---------------------------------------------------------------- Zammad


def read(*arguments: Any, **options: Any) -> Ticket:
    found = ticket_of(payload(*arguments, **options))
    assert isinstance(found, Ticket)
    return found


def test_a_payload_is_read() -> None:
    found = read("<p>Help</p>", title=" Shop  is\tdown ", server="shop", is_html=True)
    assert found == Ticket(
        ticket_id=81,
        number="10081",
        title="Shop is down",
        article_id=104,
        text="Help",
        sender="anna@example.org",
        server="shop",
        by_email=True,
        written_at=datetime(2026, 11, 24, 9, 30, 0, 318000, tzinfo=UTC),
    )
    assert not read("Help", kind="web").by_email


def test_the_from_line_is_not_the_sender() -> None:
    document = payload("Help", sender="mallory@example.com")
    document["article"]["from"] = "Anna <anna@example.org>"
    found = ticket_of(document)
    assert isinstance(found, Ticket)
    assert found.sender == "mallory@example.com"


def test_an_article_that_an_agent_wrote_for_somebody_is_theirs() -> None:
    document = payload("Help", origin_by="anna")
    document["ticket"]["customer"] = {"login": "anna", "email": "anna@example.org"}
    found = ticket_of(document)
    assert isinstance(found, Ticket)
    assert found.sender == "anna@example.org"
    document["article"]["origin_by"] = "somebody else"
    with pytest.raises(InvalidInput, match="no e-mail address"):
        ticket_of(document)


@pytest.mark.parametrize("options", [{"by": "Agent"}, {"by": "System"}, {"internal": True}])
def test_only_customers_articles_are_read(options: dict[str, Any]) -> None:
    assert isinstance(ticket_of(payload("Help", **options)), Unread)


def test_a_signature_is_that_of_these_bytes_and_this_secret() -> None:
    secret, body = Secret("secret"), b'{"a": 1}'
    good = signature(body, "secret")
    assert is_signed(body, good, secret)
    assert good == "sha1=3a11128db5d52967b47b427b632d43eb6a71391c", "as openssl computes it"
    for wrong in ("", good[:-1], good.upper(), f"{good}0", "sha1=", "\udc80", "sha1=é"):
        assert not is_signed(body, wrong, secret)
    assert not is_signed(body + b" ", good, secret)
    assert not is_signed(body, good, Secret("Secret"))
