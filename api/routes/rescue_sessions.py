"""Rescue sessions on record. A `rescue` job opens one, an `unrescue` job ends it."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.auth import Caller, CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.examples import RESCUE_SESSION
from api.rescue_views import RescueSessionRecordView
from api.routes._common import Limit, Reference, cut, problems, server_of
from api.views import Page
from managed.domain.access import Permission
from managed.domain.errors import NotFound
from managed.domain.rescue import RescueSession

router = APIRouter(prefix="/v1/rescue-sessions", tags=["servers"], route_class=GuardedRoute)

SessionReference = Annotated[
    uuid.UUID, Path(description="The session's id.", examples=[RESCUE_SESSION["id"]])
]


@router.get("", responses=problems(404), dependencies=[permits(Permission.SERVERS_READ)])
def list_rescue_sessions(
    services: ServicesDependency,
    caller: CallerDependency,
    server_id: Annotated[Reference | None, Query(description="A server's id or name.")] = None,
    is_open: Annotated[
        bool | None, Query(alias="open", description="Only open ones; or only ended ones.")
    ] = None,
    limit: Limit = 50,
    cursor: Annotated[uuid.UUID | None, Query(description="`next` of the page before.")] = None,
) -> Page[RescueSessionRecordView]:
    """Rescue sessions, newest first."""
    found = services.sessions.find(
        server_id=server_of(services, caller, server_id).server_id if server_id else None,
        customer_id=caller.principal.tenant,
        is_open=is_open,
        before=_session(services, caller, cursor) if cursor else None,
        limit=limit + 1,
    )
    page, last = cut(found, limit)
    return Page[RescueSessionRecordView](
        items=[RescueSessionRecordView.on_record(session) for session in page],
        next=last.session_id if last else None,
    )


@router.get(
    "/{session_id}", responses=problems(404), dependencies=[permits(Permission.SERVERS_READ)]
)
def read_rescue_session(
    session_id: SessionReference, services: ServicesDependency, caller: CallerDependency
) -> RescueSessionRecordView:
    """One rescue session, also when it has ended."""
    return RescueSessionRecordView.on_record(_session(services, caller, session_id))


def _session(services: Services, caller: Caller, session_id: uuid.UUID) -> RescueSession:
    found = services.sessions.get(str(session_id))
    if not caller.principal.sees(services.inventory.owner_of(found.server_id)):
        raise NotFound(f"there is no rescue session {session_id}", session_id=str(session_id))
    return found
