"""Jobs: asking for work, watching it, calling it off."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request
from fastapi.openapi.models import Example
from fastapi.responses import JSONResponse, Response
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from api.auth import AdmissionDependency, CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.examples import EVENT
from api.idempotency import Answer, IdempotencyKey, once
from api.moments import Moment
from api.requests import Cancellation, JobRequest
from api.routes._common import (
    JobReference,
    Limit,
    Reference,
    ServerReference,
    cut,
    job_of,
    problems,
    server_of,
)
from api.routes._filters import OfCustomer, customer_id_of
from api.schemas import EventsView, EventView, JobDetailView, JobView
from api.sse import Followers, event_stream
from api.submission import Submission, prepared, submit_within
from api.views import Page
from managed.domain.access import Permission, permission_for
from managed.domain.errors import InvalidInput
from managed.domain.jobs import Job, JobKind, JobStatus
from managed.storage.following import progress_of

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=GuardedRoute)

_EVENTS_PER_PAGE = 500
LARGEST_NUMBER = 2**53
_CANCELLED = Cancellation()

_EXAMPLES: dict[str, Example] = {
    "patch": {"value": {"kind": "patch", "only_security": True, "urls": ["http://127.0.0.1/"]}},
    "harden": {"value": {"kind": "harden", "extra_ports": ["8443/tcp"]}},
    "backup": {"value": {"kind": "backup"}},
    "check": {"value": {"kind": "check", "urls": ["http://127.0.0.1/"]}},
    "enrol": {"value": {"kind": "enrol"}},
    "rescue": {"value": {"kind": "rescue", "hours": 4}},
    "unrescue": {"value": {"kind": "unrescue"}},
    "restore": {"value": {"kind": "restore", "as_of": "2026-11-23T02:00:00Z"}},
    "restore-files": {
        "value": {"kind": "restore-files", "paths": ["/etc/nginx", "/srv/shop/index.php"]}
    },
    "power": {"value": {"kind": "power", "action": "reset"}},
}


@router.post(
    "/servers/{server}/jobs",
    status_code=202,
    response_model=JobDetailView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.JOBS_ASK)],
)
def submit_job(
    server: ServerReference,
    body: Annotated[JobRequest, Body(openapi_examples=_EXAMPLES)],
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Ask for a job on a server. One changing job works on a server at a time: a second one is
    refused with the present one's id (`server-busy`), except that `rescue`, `restore` and
    `unrescue` push routine work aside at its next safe point. One job can be in line for that; it
    gives way only to one that goes before it, and is then cancelled. Customers ask for `power`,
    `backup` and `check`; for all else they write a ticket.
    """
    caller.principal.require(permission_for(JobKind(body.kind)))

    def prepare() -> Submission:
        return prepared(services, caller, server_of(services, caller, server), body)

    def submit(connection: Connection, asked: Submission) -> Answer:
        job = submit_within(services, caller, connection, asked)
        return Answer(
            202,
            JobDetailView.of(job),
            f"/v1/jobs/{job.job_id}",
            job.job_id,
            job.server_id,
            {"kind": job.kind.value, "name": asked.server.name},
        )

    return once(services, caller, idempotency_key, request, body).answer(prepare, submit)


@router.get("/jobs", responses=problems(404), dependencies=[permits(Permission.JOBS_READ)])
def list_jobs(
    services: ServicesDependency,
    caller: CallerDependency,
    server_id: Annotated[Reference | None, Query(description="A server's id or name.")] = None,
    kind: JobKind | None = None,
    status: JobStatus | None = None,
    customer: OfCustomer = None,
    requested_by: Annotated[
        str | None, Query(max_length=253, description="Who asked, exactly as jobs show it.")
    ] = None,
    since: Annotated[Moment | None, Query(description="Asked for at that time or later.")] = None,
    until: Annotated[Moment | None, Query(description="Asked for before that time.")] = None,
    limit: Limit = 50,
    cursor: Annotated[uuid.UUID | None, Query(description="`next` of the page before.")] = None,
) -> Page[JobView]:
    """Jobs, newest first, without their steps."""
    found = services.queue.find(
        server_id=server_of(services, caller, server_id).server_id if server_id else None,
        customer_id=customer_id_of(services, caller, customer),
        kind=kind,
        status=status,
        requested_by=requested_by,
        since=since,
        until=until,
        before=job_of(services, caller, cursor) if cursor else None,
        limit=limit + 1,
    )
    page, last = cut(found, limit)
    return Page[JobView](
        items=[JobView.of(job) for job in page], next=last.job_id if last else None
    )


@router.get("/jobs/{job_id}", responses=problems(404), dependencies=[permits(Permission.JOBS_READ)])
def read_job(
    job_id: JobReference, services: ServicesDependency, caller: CallerDependency
) -> JobDetailView:
    """One job with its steps: what each did and found, warnings, and the error if it failed."""
    return JobDetailView.of(job_of(services, caller, job_id))


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    response_model=JobDetailView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.JOBS_ASK)],
)
def cancel_job(
    job_id: JobReference,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    body: Cancellation = _CANCELLED,
) -> JSONResponse:
    """Ask a job to stop. It does at its next safe point: a package manager is never cut off. What
    it changed is taken back where its steps can do that. Asking twice is fine.
    """
    reason = f"{body.reason} ({caller.name})"

    def prepare() -> Job:
        found = job_of(services, caller, job_id)
        caller.principal.require(permission_for(found.kind))
        return found

    def cancel(connection: Connection, found: Job) -> Answer:
        job = services.queue.cancel_within(connection, found.job_id, reason, services.clock())
        return Answer(
            202,
            JobDetailView.of(job),
            job_id=job.job_id if job.status is JobStatus.QUEUED else "",
            subject=job.server_id,
            facts={"job_id": job.job_id, "kind": job.kind.value, "why": body.reason},
        )

    return once(services, caller, None, request, body).answer(prepare, cancel)


@router.get(
    "/jobs/{job_id}/events",
    response_class=Response,
    dependencies=[permits(Permission.JOBS_READ)],
    responses={
        **problems(404),
        200: {
            "model": EventsView,
            "description": "Server-sent events (`id` is the event's number, `event` its type,"
            " `data` an Event as JSON), or one page of them as JSON.",
            "content": {
                "text/event-stream": {
                    "example": f"id: {EVENT['seq']}\nevent: {EVENT['type']}\n"
                    f"data: {json.dumps(EVENT)}\n\n"
                },
            },
        },
    },
)
async def read_events(
    job_id: JobReference,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    admission: AdmissionDependency,
    after: Annotated[
        int, Query(ge=0, le=LARGEST_NUMBER, description="Only events with a higher number.")
    ] = 0,
    last_event_id: Annotated[
        str | None, Header(description="What browsers send to go on; goes before `after`.")
    ] = None,
    accept: Annotated[str, Header()] = "*/*",
) -> Response:
    """What happens to a job, as it happens: steps, live output of playbooks and restic, progress.

    The stream sends all events after the given number, follows the job, and closes after its last
    event (`job_ended`), or soon after the token counts no more. With `Accept: application/json` it
    is one page that ends at once.
    """
    job = await run_in_threadpool(job_of, services, caller, job_id)
    position = position_of(last_event_id) if last_event_id else after
    if "application/json" in accept:
        view = await run_in_threadpool(_events_page(services, job.job_id, position))
        return JSONResponse(view.model_dump(mode="json"))
    followers: Followers = request.app.state.followers
    return event_stream(services, followers, admission, job.job_id, position)


def position_of(text: str) -> int:
    """The number in a Last-Event-ID; InvalidInput."""
    if not text.isascii() or not text.isdecimal() or len(text) > 16:
        raise InvalidInput("Last-Event-ID is not a number", field="Last-Event-ID")
    return int(text)


def _events_page(services: Services, job_id: str, position: int) -> Callable[[], EventsView]:
    def read() -> EventsView:
        progress = progress_of(services.database, [job_id])[job_id]
        events = services.events.after(job_id, position, _EVENTS_PER_PAGE)
        reached = events[-1].seq if events else position
        return EventsView(
            items=[EventView.of(event) for event in events],
            is_complete=progress.is_final and reached >= progress.last_seq,
        )

    return read
