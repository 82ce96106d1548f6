"""Servers: the list, one server's page, and asking for work on it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import StringConstraints

from api.auth import permits
from api.dependencies import Services, ServicesDependency
from api.panel.actions import Action, offers
from api.panel.pages import page
from api.panel.route import FormDependency, PageRoute, Visitor, VisitorDependency, required
from api.routes import jobs as api_jobs
from api.routes._common import cut, server_of
from managed.domain.access import Permission
from managed.domain.errors import InvalidInput
from managed.domain.jobs import JobKind
from managed.domain.patch_evidence import PatchEvidence, patch_evidence
from managed.domain.servers import Server
from managed.domain.windows import (
    WINDOW_KINDS,
    Covered,
    NearestWindows,
    Opening,
    Window,
    next_opening,
    open_now,
    server_limitation,
)
from managed.storage.search import search_servers

router = APIRouter(prefix="/panel/servers", route_class=PageRoute, include_in_schema=False)

_PAGE = 50
_NEWEST = 20

ServerReference = Annotated[str, Path(pattern=r"^[A-Za-z0-9-]{1,63}$")]
SearchedPart = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)]


@dataclass(frozen=True)
class WindowRow:
    """`window` is None where nothing of this kind starts by itself."""

    kind: JobKind
    window: Window | None
    present: Opening | None
    next: Opening | None


@dataclass(frozen=True)
class PatchRow:
    job_id: str
    at: datetime | None
    evidence: PatchEvidence


@router.get("", dependencies=[permits(Permission.SERVERS_READ)])
def list_servers(
    request: Request,
    services: ServicesDependency,
    visitor: VisitorDependency,
    search: SearchedPart = "",
    after: Annotated[str, Query(max_length=63)] = "",
) -> Response:
    """By name, as far as they are the visitor's to see."""
    servers, last = cut(_found(services, visitor.principal.tenant, search, after), _PAGE)
    return page(
        request,
        "servers.html",
        servers=servers,
        search=search,
        after=after,
        next_after=last.name if last else "",
    )


@router.get("/{server}", dependencies=[permits(Permission.SERVERS_READ)])
def show_server(
    request: Request,
    server: ServerReference,
    services: ServicesDependency,
    visitor: VisitorDependency,
) -> Response:
    found = server_of(services, visitor.caller(), server)
    customer = services.customers.named(found.customer_id) if found.customer_id else None
    plan = services.customers.plan_of(found)
    snapshots = services.catalogue.of_server(found.server_id)
    return page(
        request,
        "server.html",
        server=found,
        customer=customer,
        plan=plan,
        rescue=services.sessions.current(found.server_id),
        windows=_windows(services, visitor, found),
        limitation=server_limitation(found.status, plan.kind if plan else None),
        jobs=services.queue.find(server_id=found.server_id, limit=_NEWEST),
        snapshots=snapshots[:_NEWEST],
        snapshot_count=len(snapshots),
        patch=_last_patch(services, found),
        survey=services.surveys.last(found.server_id, JobKind.PATCH),
        offers=offers(services, visitor, found),
    )


@router.get("/{server}/ask/{action}", dependencies=[permits(Permission.JOBS_ASK)])
def confirm(
    request: Request,
    server: ServerReference,
    action: Action,
    services: ServicesDependency,
    visitor: VisitorDependency,
) -> Response:
    """Says what will happen, and asks why. The key has two clicks start one job."""
    found = server_of(services, visitor.caller(), server)
    return page(request, "ask.html", server=found, action=action, key=str(uuid.uuid4()))


@router.post("/{server}/jobs", dependencies=[permits(Permission.JOBS_ASK)])
def submit_job(
    request: Request,
    server: ServerReference,
    services: ServicesDependency,
    visitor: VisitorDependency,
    fields: FormDependency,
) -> Response:
    """By the API's own code: the same permissions, plans, refusals and entry in the audit log."""
    action = _action(fields.get("action", ""))
    if action.is_harsh:
        required(fields, "reason", "the reason for the audit log")
    answer = api_jobs.submit_job(
        server,
        action.job,
        request,
        services,
        visitor.caller(fields.get("reason", "")),
        required(fields, "key", "the form's key")[:100],
    )
    job_id = json.loads(bytes(answer.body))["id"]
    return RedirectResponse(f"/panel/jobs/{job_id}", 303)


def _found(
    services: Services, tenant: str | None, search: str, after_name: str
) -> Sequence[Server]:
    """One more than a page has."""
    limit = _PAGE + 1
    if not search:
        return services.inventory.find(customer_id=tenant, after_name=after_name, limit=limit)
    return search_servers(
        services.database, search, customer_id=tenant, after_name=after_name, limit=limit
    )


def _action(name: str) -> Action:
    try:
        return Action(name)
    except ValueError as error:
        raise InvalidInput("the panel offers no such action", field="action") from error


def _windows(services: Services, visitor: Visitor, server: Server) -> list[WindowRow]:
    """What starts by itself on this server, and when."""
    now = services.clock()
    nearest = NearestWindows(services.windows.all(visitor.principal.tenant))
    covered = Covered(server.server_id, server.customer_id, server.plan_id)
    rows = []
    for kind in WINDOW_KINDS:
        window = nearest.of(covered, kind)
        rows.append(
            WindowRow(
                kind,
                window,
                open_now(window, now) if window else None,
                next_opening(window, now) if window else None,
            )
        )
    return rows


def _last_patch(services: Services, server: Server) -> PatchRow | None:
    job_id = services.overview.last_patch(server.server_id)
    if job_id is None:
        return None
    job = services.queue.job(job_id)
    evidence = patch_evidence(job)
    return PatchRow(job_id, job.finished_at, evidence) if evidence else None
