"""What helpdesks send: signed, small, and answered at once."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.dependencies import Services, ServicesDependency
from api.schemas import Problem
from api.ticket_views import DeliveryView
from managed.domain.errors import InvalidInput, Json, MissingRequirement, SignatureRefused
from managed.domain.incoming import judged
from managed.domain.tickets import Unread
from managed.domain.zammad import is_signed, ticket_of
from managed.storage.intake import Delivery, Taken

log = structlog.get_logger()

router = APIRouter(prefix="/v1", tags=["requests"])

LARGEST_DELIVERY: Final = 256 * 1024
_LONGEST_DELIVERY_ID: Final = 120

_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        401: "The signature is missing or wrong.",
        409: "This delivery came with another body before.",
        413: "The body is larger than 256 KiB.",
        422: "The delivery has no id, or its body is not Zammad's default payload.",
        503: "No secret is set up, or the database does not answer.",
    }.items()
}
_EXAMPLE: Final = {
    "ticket": {"id": 81, "number": "10081", "title": "Shop is broken", "vps_id": "shop"},
    "article": {
        "id": 104,
        "sender": "Customer",
        "type": "email",
        "internal": False,
        "content_type": "text/plain",
        "body": "Please restore the whole server as it was yesterday 18:00.",
        "created_at": "2026-11-24T09:30:00.318Z",
        "created_by": {"email": "anna@example.org"},
    },
}
_BODY: Final = {
    "requestBody": {
        "description": "Zammad's default payload; what is not shown here is not read.",
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "examples": {"a customer's e-mail": {"value": _EXAMPLE}},
            }
        },
    }
}


@router.post("/webhooks/zammad", responses=_REFUSALS, openapi_extra=_BODY)
async def take_ticket(
    request: Request,
    services: ServicesDependency,
    x_hub_signature: Annotated[
        str, Header(description="`sha1=` and the HMAC-SHA1 of the body, in hexadecimal.")
    ] = "",
    x_zammad_delivery: Annotated[
        str, Header(description="Unique for each delivery; the same one is taken once.")
    ] = "",
) -> DeliveryView:
    """Zammad's webhook. No bearer token: the body is signed. What a customer wrote becomes a
    request, which proposes something and does nothing; staff decides on it.
    """
    secret = services.webhook_secret
    if secret is None:
        raise MissingRequirement(
            "no webhook of a helpdesk is set up here",
            hint="Set MANAGED_ZAMMAD_WEBHOOK_SECRET, and the same secret in Zammad's webhook.",
        )
    body = await _bounded_body(request)
    if not is_signed(body, x_hub_signature, secret):
        raise SignatureRefused(
            "the header X-Hub-Signature is not the signature of this body",
            hint="Zammad's webhook needs the secret of MANAGED_ZAMMAD_WEBHOOK_SECRET.",
        )
    taken = await run_in_threadpool(_take, services, _delivery(x_zammad_delivery, body), body)
    return DeliveryView.of(taken)


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_DELIVERY:
            raise HTTPException(413, "the body is larger than 256 KiB", {"Connection": "close"})
    return bytes(body)


def _delivery(delivery_id: str, body: bytes) -> Delivery:
    is_id = delivery_id.isascii() and delivery_id.isprintable() and delivery_id.strip()
    if not is_id or len(delivery_id) > _LONGEST_DELIVERY_ID:
        raise InvalidInput(
            "the header X-Zammad-Delivery holds no id of this delivery", field="X-Zammad-Delivery"
        )
    return Delivery(delivery_id, hashlib.sha256(body).hexdigest())


def _take(services: Services, delivery: Delivery, body: bytes) -> Taken:
    intake = services.intake
    earlier = intake.earlier(delivery)
    if earlier is not None:
        return earlier
    ticket = ticket_of(_payload(body))
    if isinstance(ticket, Unread):
        log.info("article_unread", delivery_id=delivery.delivery_id, reason=ticket.reason)
        return intake.take_in(delivery, None, services.clock())
    named = intake.named_server(ticket.server) if ticket.server else None
    asked = judged(ticket, intake.sender(ticket.sender), named, services.tickets_zone)
    taken = intake.take_in(delivery, asked, services.clock())
    log.info("article_taken", outcome=taken.outcome, request_id=taken.request_id)
    return taken


def _payload(body: bytes) -> dict[str, Json]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the body is no JSON document", field="body") from error
    if not isinstance(payload, dict):
        raise InvalidInput("the body holds no object", field="body")
    return payload
