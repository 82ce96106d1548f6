"""Changing customers, plans, windows and servers, and removing what nothing refers to."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints
from sqlalchemy import Connection

from api.auth import CallerDependency, GuardedRoute, permits
from api.change_requests import CustomerChange, PlanChange, ServerChangeRequest, WindowChange
from api.dependencies import ServicesDependency
from api.idempotency import Answer, once
from api.planning_views import CustomerView, PlanView, WindowView
from api.routes._common import ServerReference, problems, server_of
from api.routes.customers import CustomerReference, customer_of, plan_of
from api.routes.windows import WindowReference, view_of
from api.schemas import ServerView
from managed.domain.access import Permission
from managed.domain.customers import Customer, Plan
from managed.domain.errors import Json
from managed.domain.public_keys import fingerprint
from managed.domain.server_changes import ServerChange, changed_server
from managed.domain.servers import Server, checked_name
from managed.domain.windows import Window, checked_minutes, checked_rule, checked_zone
from managed.storage import server_changes

router = APIRouter(prefix="/v1", route_class=GuardedRoute)

PlanReference = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100),
    Path(description="The plan's id or name."),
]


@router.patch(
    "/servers/{server}",
    response_model=ServerView,
    responses=problems(404, 409, 413),
    tags=["servers"],
    dependencies=[permits(Permission.SERVERS_WRITE)],
)
def change_server(
    server: ServerReference,
    body: ServerChangeRequest,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Change how a server is called and reached, or pin another host key; not while a job works
    on it. Where a server on a node of ours is reached the node says.
    """

    def prepare() -> tuple[Server, Server]:
        found = server_of(services, caller, server)
        return found, changed_server(found, ServerChange(**body.model_dump()))

    def change(connection: Connection, prepared: tuple[Server, Server]) -> Answer:
        before, changed = prepared
        server_changes.change_server(connection, before, changed)
        facts = _changed(body.model_dump(exclude_none=True, exclude={"host_key"}))
        if changed.host_key != before.host_key:
            facts["fingerprint"] = fingerprint(changed.host_key)
        return Answer(200, ServerView.of(changed), subject=before.server_id, facts=facts)

    return once(services, caller, None, request, body).answer(prepare, change)


@router.patch(
    "/customers/{customer}",
    response_model=CustomerView,
    responses=problems(404, 409, 413),
    tags=["customers"],
    dependencies=[permits(Permission.CUSTOMERS_WRITE)],
)
def change_customer(
    customer: CustomerReference,
    body: CustomerChange,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Change a customer's name or address."""
    given = body.model_dump(exclude_none=True)

    def change(connection: Connection, found: Customer) -> Answer:
        changed = replace(services.customers.locked(connection, found.customer_id), **given)
        services.customers.change(connection, changed)
        return Answer(
            200, CustomerView.of(changed), subject=found.customer_id, facts=_changed(given)
        )

    return once(services, caller, None, request, body).answer(
        lambda: customer_of(services, customer), change
    )


@router.delete(
    "/customers/{customer}",
    response_model=CustomerView,
    responses=problems(404, 409),
    tags=["customers"],
    dependencies=[permits(Permission.CUSTOMERS_WRITE)],
)
def remove_customer(
    customer: CustomerReference,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Remove a customer to whom nothing belongs any more; `data` says what does. Answers what it
    was.
    """

    def remove(connection: Connection, found: Customer) -> Answer:
        services.customers.remove(connection, found)
        facts: dict[str, Json] = {"name": found.name, "email": found.email}
        return Answer(200, CustomerView.of(found), subject=found.customer_id, facts=facts)

    return once(services, caller, None, request, None).answer(
        lambda: customer_of(services, customer), remove
    )


@router.get(
    "/plans/{plan}",
    responses=problems(404),
    tags=["plans"],
    dependencies=[permits(Permission.CUSTOMERS_READ)],
)
def read_plan(plan: PlanReference, services: ServicesDependency) -> PlanView:
    """One plan, by id or name."""
    return PlanView.of(plan_of(services, plan))


@router.patch(
    "/plans/{plan}",
    response_model=PlanView,
    responses=problems(404, 409, 413),
    tags=["plans"],
    dependencies=[permits(Permission.CUSTOMERS_WRITE)],
)
def change_plan(
    plan: PlanReference,
    body: PlanChange,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Change a plan for all servers that are on it. What has begun goes on."""
    given = body.model_dump(exclude_none=True)

    def prepare() -> Plan:
        if body.name is not None:
            checked_name(body.name)
        return plan_of(services, plan)

    def change(connection: Connection, found: Plan) -> Answer:
        changed = replace(services.customers.locked_plan(connection, found.plan_id), **given)
        services.customers.change_plan(connection, changed, services.clock())
        return Answer(200, PlanView.of(changed), subject=found.plan_id, facts=_changed(given))

    return once(services, caller, None, request, body).answer(prepare, change)


@router.delete(
    "/plans/{plan}",
    response_model=PlanView,
    responses=problems(404, 409),
    tags=["plans"],
    dependencies=[permits(Permission.CUSTOMERS_WRITE)],
)
def remove_plan(
    plan: PlanReference, request: Request, services: ServicesDependency, caller: CallerDependency
) -> JSONResponse:
    """Remove a plan that no server is on and that has no window; `data` says what there is.
    Answers what it was.
    """

    def remove(connection: Connection, found: Plan) -> Answer:
        services.customers.remove_plan(connection, found)
        return Answer(200, PlanView.of(found), subject=found.plan_id, facts={"name": found.name})

    return once(services, caller, None, request, None).answer(
        lambda: plan_of(services, plan), remove
    )


@router.patch(
    "/windows/{window_id}",
    response_model=WindowView,
    responses=problems(404, 409, 413),
    tags=["windows"],
    dependencies=[permits(Permission.WINDOWS_WRITE)],
)
def change_window(
    window_id: WindowReference,
    body: WindowChange,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Change when a window opens. It counts from its next start on, as a new one does; what it has
    started goes on.
    """

    given = body.model_dump(exclude_none=True)

    def change(connection: Connection, found: Window) -> Answer:
        present = services.windows.locked(connection, found.window_id)
        changed = replace(present, **given, created_at=services.clock())
        checked_zone(changed.zone)
        checked_rule(changed.rule, changed.zone, changed.starts_on, changed.created_at)
        checked_minutes(changed.minutes)
        services.windows.change(connection, changed)
        view = view_of(services, connection, changed)
        facts = _changed(body.model_dump(mode="json", exclude_none=True))
        return Answer(
            200, view, subject=changed.owner_id, facts={"window_id": changed.window_id, **facts}
        )

    return once(services, caller, None, request, body).answer(
        lambda: services.windows.get(str(window_id)), change
    )


def _changed(given: dict[str, Any]) -> dict[str, Json]:
    """What was given, for the audit log."""
    return {"changed": given}
