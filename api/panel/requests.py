"""A ticket's request: what was written, what is proposed and why, and the decision on it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from api.auth import permits
from api.dependencies import Services, ServicesDependency
from api.moments import moment_of
from api.panel.pages import page
from api.panel.route import Form, FormDependency, PageRoute, VisitorDependency, required
from api.routes import requests as api_requests
from api.routes.requests import RequestReference
from api.ticket_requests import Approval, Refusal, WantedAction
from api.ticket_views import ReplyView
from managed.domain.access import Permission
from managed.domain.documents import printable
from managed.domain.errors import InvalidInput
from managed.domain.requests import Action, ActionKind
from managed.domain.requests import Request as TicketRequest
from managed.domain.servers import Server

router = APIRouter(prefix="/panel/requests", route_class=PageRoute, include_in_schema=False)

_LONGEST_KEY: Final = 100


@dataclass(frozen=True)
class Consequence:
    """What happens when an action is approved; a harsh one may cost what runs on the server."""

    sentence: str
    is_harsh: bool = False


_CONSEQUENCES: Final = {
    ActionKind.RESTORE_FILES: Consequence(
        "What was asked for comes back beside the present files: nothing is overwritten."
    ),
    ActionKind.RESTORE_SERVER: Consequence(
        "The whole server is put back from its backup: it is down meanwhile, and what was written"
        " since that backup is gone.",
        is_harsh=True,
    ),
    ActionKind.RESCUE: Consequence(
        "The server is stopped and boots the rescue image over its own disk: what runs on it is"
        " down until the session ends.",
        is_harsh=True,
    ),
    ActionKind.PATCH: Consequence(
        "Updates are installed now, and the server is rebooted if they ask for it."
    ),
}


@router.get("/{request_id}", dependencies=[permits(Permission.REQUESTS_READ)])
def show_request(
    request: Request,
    request_id: RequestReference,
    services: ServicesDependency,
    visitor: VisitorDependency,
) -> Response:
    """The keys of the forms have two clicks decide once."""
    found = services.requests.get(str(request_id))
    reply = services.replies.of_request(found.request_id)
    return page(
        request,
        "request.html",
        asked=found,
        server=_server(services, found),
        customer=services.customers.named(found.customer_id) if found.customer_id else None,
        reply=ReplyView.of(reply) if reply else None,
        consequence=_CONSEQUENCES.get(found.proposal.action.kind),
        choices=_CONSEQUENCES,
        as_of=_time_field(found.proposal.action.as_of),
        may_decide=visitor.may(Permission.REQUESTS_DECIDE),
        key=str(uuid.uuid4()),
    )


@router.post("/{request_id}/approve", dependencies=[permits(Permission.REQUESTS_DECIDE)])
def approve_request(
    request: Request,
    request_id: RequestReference,
    services: ServicesDependency,
    visitor: VisitorDependency,
    fields: FormDependency,
) -> Response:
    """As proposed, or what was chosen instead, by the API's own code, also when somebody has
    approved something else since the page was read: that is refused then. A ticket that named no
    server needs one.
    """
    wanted = _chosen(fields) or _as_proposed(services.requests.get(str(request_id)).proposal.action)
    answer = api_requests.approve_request(
        request_id,
        request,
        services,
        visitor.caller(),
        _approval(wanted, fields.get("server", "").strip()),
        required(fields, "key", "the form's key")[:_LONGEST_KEY],
    )
    job_id = json.loads(bytes(answer.body))["job_id"]
    return RedirectResponse(f"/panel/jobs/{job_id}", 303)


@router.post("/{request_id}/refuse", dependencies=[permits(Permission.REQUESTS_DECIDE)])
def refuse_request(
    request: Request,
    request_id: RequestReference,
    services: ServicesDependency,
    visitor: VisitorDependency,
    fields: FormDependency,
) -> Response:
    """The sender reads the reason, unless it is answered otherwise."""
    api_requests.refuse_request(
        request_id,
        _refusal(required(fields, "reason", "the reason"), answer="answer" in fields),
        request,
        services,
        visitor.caller(),
        required(fields, "key", "the form's key")[:_LONGEST_KEY],
    )
    return RedirectResponse(f"/panel/requests/{request_id}", 303)


def _server(services: Services, found: TicketRequest) -> Server | None:
    return services.inventory.get(found.server_id) if found.server_id else None


def _as_proposed(action: Action) -> WantedAction:
    return WantedAction(kind=action.kind, paths=list(action.paths), as_of=action.as_of)


def _chosen(fields: Form) -> WantedAction | None:
    """What the form for something else holds; None when it was another form. InvalidInput. Fields
    that the chosen action does not take may be filled in: they are, from what was proposed.
    """
    if "action" not in fields:
        return None
    try:
        kind = ActionKind(fields["action"])
    except ValueError as error:
        raise InvalidInput(
            "this cannot be done for a ticket",
            hint=f"One of {', '.join(_CONSEQUENCES)} can.",
            field="action",
        ) from error
    lines = fields.get("paths", "").splitlines() if kind is ActionKind.RESTORE_FILES else []
    as_of = _time(fields.get("as_of", "")) if kind.is_restore else None
    try:
        paths = [line.strip() for line in lines if line.strip()]
        return WantedAction(kind=kind, paths=paths, as_of=as_of)
    except ValidationError as error:
        raise InvalidInput("these are too many paths, or one is too long", field="paths") from error


def _time_field(time: datetime | None) -> str:
    """What a field for a time holds; `_time` reads it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") if time else ""


def _time(text: str) -> datetime | None:
    """What stands in a field for a time, which is UTC; None for an empty one. InvalidInput."""
    if not text.strip():
        return None
    try:
        given = datetime.fromisoformat(text.strip())
        aware = given if given.tzinfo else given.replace(tzinfo=UTC)
        return moment_of(aware.isoformat())
    except ValueError as error:
        raise InvalidInput(
            f"{printable(text)!r} is no time", hint="Write it like 2026-11-23 17:00.", field="as_of"
        ) from error


def _approval(wanted: WantedAction, server: str) -> Approval:
    try:
        return Approval(action=wanted, server=server or None)
    except ValidationError as error:
        raise InvalidInput("that is no name of a server", field="server") from error


def _refusal(reason: str, *, answer: bool) -> Refusal:
    try:
        return Refusal(reason=reason, answer=answer)
    except ValidationError as error:
        raise InvalidInput("the reason cannot be sent as it is", field="reason") from error
