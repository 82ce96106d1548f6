"""What tickets ask for, and what staff decides on it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from api.auth import Caller, CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.idempotency import Answer, IdempotencyKey, once
from api.routes._common import Limit, Reference, cut, problems, server_of
from api.routes.customers import Reference as CustomerReference
from api.routes.customers import customer_of
from api.submission import Backup, job_refusal
from api.ticket_requests import Approval, Refusal
from api.ticket_views import REQUEST_ID, RequestDetailView, RequestView
from api.views import Page
from managed.domain.access import Permission, permission_for
from managed.domain.errors import Conflict, InvalidInput, ManagedError
from managed.domain.replies import refusal_text, reply_to
from managed.domain.requests import (
    Action,
    Decision,
    RequestStatus,
    approval_refusal,
    checked_action,
    job_kind_for,
    refusal_refusal,
)
from managed.domain.requests import Request as TicketRequest
from managed.domain.servers import Server
from managed.domain.tickets import ownership_refusal
from managed.storage.replies import reply_of

router = APIRouter(prefix="/v1", tags=["requests"], route_class=GuardedRoute)

RequestReference = Annotated[
    uuid.UUID, Path(description="The request's id.", examples=[REQUEST_ID])
]
_AS_PROPOSED = Approval()


@router.get(
    "/requests",
    responses=problems(404),
    dependencies=[permits(Permission.REQUESTS_READ)],
)
def list_requests(
    services: ServicesDependency,
    caller: CallerDependency,
    status: RequestStatus | None = None,
    server: Annotated[Reference | None, Query(description="A server's id or name.")] = None,
    customer: Annotated[
        CustomerReference | None, Query(description="A customer's id or name.")
    ] = None,
    limit: Limit = 50,
    cursor: Annotated[uuid.UUID | None, Query(description="`next` of the page before.")] = None,
) -> Page[RequestView]:
    """Requests, newest first."""
    found = services.requests.find(
        server_id=server_of(services, caller, server).server_id if server else None,
        customer_id=customer_of(services, customer).customer_id if customer else None,
        status=status,
        before=services.requests.get(str(cursor)) if cursor else None,
        limit=limit + 1,
    )
    page, last = cut(found, limit)
    return Page[RequestView](
        items=[RequestView.of(one) for one in page], next=last.request_id if last else None
    )


@router.get(
    "/requests/{request_id}",
    responses=problems(404),
    dependencies=[permits(Permission.REQUESTS_READ)],
)
def read_request(request_id: RequestReference, services: ServicesDependency) -> RequestDetailView:
    """One request: the ticket's text, what is proposed and why, what became of it."""
    found = services.requests.get(str(request_id))
    return RequestDetailView.with_reply(found, services.replies.of_request(found.request_id))


@router.post(
    "/requests/{request_id}/approve",
    status_code=202,
    response_model=RequestDetailView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.REQUESTS_DECIDE)],
)
def approve_request(
    request_id: RequestReference,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    body: Approval = _AS_PROPOSED,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Have the proposed action carried out, or another one: its job is started with the decision,
    and the sender is told of its end. A request has one job: approving it again changes nothing,
    approving it otherwise is refused. When the job cannot be started now (`server-busy`, say), the
    request stays open.
    """

    def prepare() -> _Approval:
        return _prepared(services, caller, services.requests.get(str(request_id)), body)

    def approve(connection: Connection, approval: _Approval) -> Answer:
        present = services.requests.locked(connection, str(request_id))
        refusal = approval_refusal(present, approval.action, approval.server_id)
        if refusal is not None:
            raise refusal
        if present.status is not RequestStatus.OPEN:
            return Answer(202, _view(connection, present), changed=False)
        kind = job_kind_for(approval.action)
        caller.principal.require(permission_for(kind))
        ticket = _ticket_number(present)
        new = services.new_job(
            approval.server_id,
            kind,
            approval.action.job_parameters(),
            f"{caller.name} for ticket {ticket}",
            run_key=present.run_key,
        )
        now = services.clock()
        job = services.queue.submit_within(connection, new, now)
        if services.inventory.owner_within(connection, job.server_id) != approval.customer_id:
            raise Conflict("the server has got another owner at this moment")
        if approval.refusal is not None:
            # After the submission, as for every job: that the server is busy explains more.
            raise approval.refusal
        decision = Decision(caller.name, now, approval.action)
        approved = services.requests.approve(
            connection, present, decision, approval.server_id, approval.customer_id, job.job_id
        )
        location = f"/v1/jobs/{job.job_id}"
        return Answer(
            202,
            _view(connection, approved),
            location,
            job.job_id,
            approval.server_id,
            {"request_id": present.request_id, "ticket": ticket, "kind": job.kind.value},
            reason=f"ticket {ticket}",
        )

    return once(services, caller, idempotency_key, request, body).answer(prepare, approve)


@router.post(
    "/requests/{request_id}/refuse",
    response_model=RequestDetailView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.REQUESTS_DECIDE)],
)
def refuse_request(
    request_id: RequestReference,
    body: Refusal,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Refuse a request; the sender gets the reason. Refusing it again changes nothing."""

    def refuse(connection: Connection, _: None) -> Answer:
        present = services.requests.locked(connection, str(request_id))
        refusal = refusal_refusal(present)
        if refusal is not None:
            raise refusal
        if present.status is not RequestStatus.OPEN:
            return Answer(200, _view(connection, present), changed=False)
        decision = Decision(caller.name, services.clock(), reason=body.reason)
        reply = reply_to(present, refusal_text(body.reason)) if body.answer else None
        refused = services.requests.refuse(connection, present, decision, reply)
        ticket = _ticket_number(refused)
        return Answer(
            200,
            _view(connection, refused),
            subject=refused.server_id or refused.request_id,
            facts={"request_id": refused.request_id, "ticket": ticket, "why": body.reason},
            reason=f"ticket {ticket}",
        )

    return once(services, caller, idempotency_key, request, body).answer(lambda: None, refuse)


def _ticket_number(request: TicketRequest) -> str:
    """What people call the ticket by."""
    return request.ticket.number or str(request.ticket.ticket_id)


def _view(connection: Connection, request: TicketRequest) -> RequestDetailView:
    return RequestDetailView.with_reply(request, reply_of(connection, request.request_id))


@dataclass(frozen=True)
class _Approval:
    """What is to be approved. `refusal` is why the server cannot have such a job as it stands."""

    action: Action
    server_id: str
    customer_id: str | None
    refusal: ManagedError | None = None


def _prepared(
    services: Services, caller: Caller, request: TicketRequest, body: Approval
) -> _Approval:
    """What this body asks for; of a request that is decided already only for comparison."""
    wanted = body.action.action() if body.action else None
    if request.status is not RequestStatus.OPEN:
        server_id = server_of(services, caller, body.server).server_id if body.server else None
        decided = request.decision.action if request.decision else None
        action = wanted or decided or request.proposal.action
        return _Approval(action, server_id or request.server_id or "", request.customer_id)
    proposed = request.proposal.action
    action = wanted or checked_action(proposed.kind, proposed.paths, proposed.as_of)
    server = _server(services, caller, request, body)
    refusal = _job_refusal(services, server, action)
    return _Approval(action, server.server_id, server.customer_id, refusal)


def _server(services: Services, caller: Caller, request: TicketRequest, body: Approval) -> Server:
    """The server that is meant. Also at the approval it has to be the sender's: it may have got
    another owner since.
    """
    reference = body.server or request.server_id
    if reference is None:
        raise InvalidInput(
            "the ticket does not say which server is meant",
            hint="Give `server`, the id or name of one of the sender's.",
            field="server",
        )
    server = server_of(services, caller, reference)
    owner = services.customers.named(server.customer_id) if server.customer_id else None
    refusal = ownership_refusal(request.ticket.sender, server, owner)
    if refusal is not None:
        raise Conflict(
            f"the sender may ask nothing for this server: {refusal}",
            hint="Refuse the request. If it is right all the same, ask for the job itself.",
            server_id=server.server_id,
        )
    return server


def _job_refusal(services: Services, server: Server, action: Action) -> ManagedError | None:
    backup = Backup(server, None, action.as_of, action.paths) if action.kind.is_restore else None
    return job_refusal(services, server, job_kind_for(action), backup)
