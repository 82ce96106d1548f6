"""Customers and plans, and which servers are theirs."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints
from sqlalchemy import Connection

from api.auth import CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.idempotency import Answer, IdempotencyKey, once
from api.planning_requests import NewCustomer, NewPlan, Placement
from api.planning_views import CustomerView, PlanView
from api.routes._common import Limit, ServerReference, cut, problems, server_of
from api.schemas import ServerView
from api.views import Page
from managed.domain.access import Permission
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.errors import NotFound
from managed.domain.servers import Server, checked_name
from managed.storage.handover import lock_server
from managed.storage.server_changes import require_free

router = APIRouter(prefix="/v1", route_class=GuardedRoute)

Reference = Annotated[str, StringConstraints(min_length=1, max_length=100)]
CustomerReference = Annotated[Reference, Path(description="The customer's id or name.")]
NameCursor = Annotated[Reference | None, Query(description="`next` of the page before.")]


@router.post(
    "/customers",
    status_code=201,
    response_model=CustomerView,
    responses=problems(409, 413),
    tags=["customers"],
    dependencies=[permits(Permission.CUSTOMERS_WRITE)],
)
def add_customer(
    body: NewCustomer,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Add a customer."""

    def add(connection: Connection, customer: Customer) -> Answer:
        services.customers.add(connection, customer, services.clock())
        return Answer(
            201,
            CustomerView.of(customer),
            f"/v1/customers/{customer.customer_id}",
            subject=customer.customer_id,
            facts={"name": customer.name, "email": customer.email},
        )

    return once(services, caller, idempotency_key, request, body).answer(
        lambda: Customer(str(uuid.uuid4()), body.name, body.email), add
    )


@router.get(
    "/customers",
    responses=problems(),
    tags=["customers"],
    dependencies=[permits(Permission.CUSTOMERS_READ)],
)
def list_customers(
    services: ServicesDependency,
    email: Annotated[
        str | None, Query(max_length=254, description="Of exactly this address.")
    ] = None,
    limit: Limit = 50,
    cursor: NameCursor = None,
) -> Page[CustomerView]:
    """Customers, by name."""
    found = services.customers.find(email=email, after_name=cursor or "", limit=limit + 1)
    page, last = cut(found, limit)
    return Page[CustomerView](
        items=[CustomerView.of(customer) for customer in page], next=last.name if last else None
    )


@router.get(
    "/customers/{customer}",
    responses=problems(404),
    tags=["customers"],
    dependencies=[permits(Permission.CUSTOMERS_READ)],
)
def read_customer(customer: CustomerReference, services: ServicesDependency) -> CustomerView:
    """One customer, by id or name."""
    return CustomerView.of(customer_of(services, customer))


@router.post(
    "/plans",
    status_code=201,
    response_model=PlanView,
    responses=problems(409, 413),
    tags=["plans"],
    dependencies=[permits(Permission.CUSTOMERS_WRITE)],
)
def add_plan(
    body: NewPlan,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Add a plan. Nothing is started on its servers before it, their customer or they themselves
    have windows.
    """

    def add(connection: Connection, plan: Plan) -> Answer:
        services.customers.add_plan(connection, plan, services.clock())
        return Answer(
            201,
            PlanView.of(plan),
            "/v1/plans",
            subject=plan.plan_id,
            facts={"name": plan.name, "kind": plan.kind.value},
        )

    return once(services, caller, idempotency_key, request, body).answer(
        lambda: Plan(str(uuid.uuid4()), checked_name(body.name), body.kind, body.only_security), add
    )


@router.get(
    "/plans",
    responses=problems(),
    tags=["plans"],
    dependencies=[permits(Permission.CUSTOMERS_READ)],
)
def list_plans(
    services: ServicesDependency,
    kind: PlanKind | None = None,
    limit: Limit = 50,
    cursor: NameCursor = None,
) -> Page[PlanView]:
    """Plans, by name."""
    found = [
        plan
        for plan in services.customers.plans()
        if plan.name > (cursor or "") and kind in (None, plan.kind)
    ]
    page, last = cut(found, limit)
    return Page[PlanView](
        items=[PlanView.of(plan) for plan in page], next=last.name if last else None
    )


@router.put(
    "/servers/{server}/placement",
    response_model=ServerView,
    responses=problems(404, 409, 413),
    tags=["servers"],
    dependencies=[permits(Permission.CUSTOMERS_WRITE)],
)
def place_server(
    server: ServerReference,
    body: Placement,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Make a server a customer's, on a plan. From then on their windows count for it, and they see
    its earlier jobs and backups. It gets no other owner while a job works on it.
    """

    def prepare() -> tuple[Server, Customer | None, Plan | None]:
        return (
            server_of(services, caller, server),
            customer_of(services, body.customer) if body.customer else None,
            plan_of(services, body.plan) if body.plan else None,
        )

    def place(
        connection: Connection, prepared: tuple[Server, Customer | None, Plan | None]
    ) -> Answer:
        found, customer, plan = prepared
        lock_server(connection, found.server_id)
        if (customer.customer_id if customer else None) != found.customer_id:
            # What works on it works for its present owner, who follows it.
            require_free(connection, found.server_id)
        placed = services.customers.place(
            connection,
            found,
            customer.customer_id if customer else None,
            plan.plan_id if plan else None,
            services.clock(),
        )
        return Answer(
            200,
            ServerView.of(placed),
            subject=placed.server_id,
            facts={
                "name": placed.name,
                "customer_id": placed.customer_id,
                "plan_id": placed.plan_id,
            },
        )

    return once(services, caller, None, request, body).answer(prepare, place)


def customer_of(services: Services, reference: str) -> Customer:
    """The customer of this id or name; NotFound."""
    found = services.customers.named(reference)
    if found is None:
        raise NotFound(f"there is no customer {reference!r}", hint="GET /v1/customers lists them.")
    return found


def plan_of(services: Services, reference: str) -> Plan:
    """The plan of this id or name; NotFound."""
    for plan in services.customers.plans():
        if reference in (plan.plan_id, plan.name):
            return plan
    raise NotFound(f"there is no plan {reference!r}", hint="GET /v1/plans lists them.")
