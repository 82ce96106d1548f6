"""What Zammad sends: the signature and the payload of its webhook, as its documentation says
(admin-docs.zammad.org, "Webhook payload"). Whatever else is in the payload is not read.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from managed.domain.errors import InvalidInput, Json
from managed.domain.moments import YEARS
from managed.domain.plain_text import one_line, plain_text
from managed.domain.secrets import Secret
from managed.domain.tickets import Ticket, Unread

SERVER_ATTRIBUTE: Final = "vps_id"
"""The name of the ticket's attribute that says which server it is about."""

_ADDRESS: Final = re.compile(r"[^@\s<>]{1,64}@[^@\s<>]{1,189}")
_LARGEST_ID: Final = 2**53


def is_signed(body: bytes, signature: str, secret: Secret) -> bool:
    """Is `signature` ("sha1=" and hexadecimal digits) the HMAC of these bytes? In constant time."""
    expected = "sha1=" + hmac.digest(secret.reveal().encode(), body, "sha1").hex()
    return hmac.compare_digest(expected.encode(), signature.strip().encode("utf-8", "replace"))


def ticket_of(payload: Mapping[str, Json]) -> Ticket | Unread:
    """The ticket and the article that triggered the webhook; InvalidInput when either lacks what
    every one has. Only what a customer wrote for us is read: not our own answers, whatever trigger
    they fire, and no internal notes.
    """
    ticket, article = _object(payload, "ticket"), _object(payload, "article")
    if article.get("internal") is True:
        return Unread("the article is internal")
    if article.get("sender") != "Customer":
        return Unread("the article is not a customer's")
    kind, is_html = article.get("type"), article.get("content_type") == "text/html"
    return Ticket(
        ticket_id=_id(ticket, "ticket"),
        number=one_line(str(ticket.get("number") or ""), 32),
        title=one_line(_text(ticket, "ticket", "title"), 250),
        article_id=_id(article, "article"),
        text=plain_text(_text(article, "article", "body"), is_html=is_html),
        sender=_sender(ticket, article),
        server=one_line(str(ticket.get(SERVER_ATTRIBUTE) or ""), 64),
        by_email=kind == "email",
        written_at=_time(article),
    )


def _sender(ticket: Mapping[str, Json], article: Mapping[str, Json]) -> str:
    """The address of the one who speaks: whom an agent wrote for (`origin_by`, a login), else the
    user whose article it is. Zammad has told them apart; the From line is not read.
    """
    origin = article.get("origin_by")
    if origin:
        customer = _optional_object(ticket, "customer")
        is_customer = origin in (customer.get("login"), customer.get("email"))
        address = customer.get("email") if is_customer else origin
    else:
        address = _optional_object(article, "created_by").get("email")
    is_address = isinstance(address, str) and address.isprintable()
    if not isinstance(address, str) or not is_address or not _ADDRESS.fullmatch(address.strip()):
        raise InvalidInput("the sender of the article has no e-mail address", field="article")
    return address.strip()


def _object(document: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise InvalidInput(
            f"the payload has no {name}",
            hint="Use Zammad's default payload, in a trigger that fires on articles.",
            field=name,
        )
    return value


def _optional_object(document: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _id(document: Mapping[str, Json], what: str) -> int:
    value = document.get("id")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST_ID:
        raise InvalidInput(f"the {what} has no id", field=f"{what}.id")
    return value


def _text(document: Mapping[str, Json], what: str, name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"the {what} has no {name}", field=f"{what}.{name}")
    return value


def _time(article: Mapping[str, Json]) -> datetime:
    try:
        found = datetime.fromisoformat(_text(article, "article", "created_at"))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or found.year not in YEARS:
        raise InvalidInput("the article has no time", field="article.created_at")
    return found
