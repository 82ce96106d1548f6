"""Inviting users to the panel."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from api.auth import CallerDependency, GuardedRoute, permits
from api.dependencies import ServicesDependency
from api.idempotency import Answer, once
from api.invitation_views import InvitationView
from api.routes._common import problems
from api.routes.access import UserReference
from managed.domain.access import Permission, User
from managed.domain.errors import Conflict
from managed.domain.sign_in import new_link_token

router = APIRouter(prefix="/v1", tags=["access"], route_class=GuardedRoute)


@router.post(
    "/users/{user}/invitation",
    status_code=201,
    response_model=InvitationView,
    responses=problems(404, 409),
    dependencies=[permits(Permission.USERS)],
)
def invite_user(
    user: UserReference, request: Request, services: ServicesDependency, caller: CallerDependency
) -> JSONResponse:
    """Make a one-time link by which the user sets the password for the panel, the first or a new
    one. The answer shows it this once. Links made before count no more.
    """

    def prepare() -> User:
        found = services.access.user(user)
        caller.principal.require_role(found.role)
        if found.disabled_at is not None:
            raise Conflict(f"{found.email} is disabled", hint="Enable the user first.")
        return found

    def invite(connection: Connection, found: User) -> Answer:
        text = new_link_token()
        made = services.panel_access.invite(connection, found, text, services.clock())
        path = f"/panel/invitation/{text.reveal()}"
        view = InvitationView(
            user_id=found.user_id,
            path=path,
            url=f"{services.public_url}{path}" if services.public_url else None,
            expires_at=made.expires_at,
        )
        return Answer(201, view, subject=found.user_id, facts={"email": found.email})

    return once(services, caller, None, request, None).answer(prepare, invite)
