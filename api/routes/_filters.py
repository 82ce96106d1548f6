"""What lists and bulk requests are narrowed by. Customers see only what is theirs, whatever they
ask for; filters that name customers, plans or nodes take the permission to read these.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import StringConstraints

from api.auth import Caller
from api.dependencies import Services
from api.routes.customers import customer_of, plan_of
from api.routes.nodes import node_named
from managed.domain.access import Permission

_Reference = Annotated[str, StringConstraints(min_length=1, max_length=100)]
OfCustomer = Annotated[_Reference | None, Query(description="A customer's id or name; for staff.")]
OfPlan = Annotated[_Reference | None, Query(description="A plan's id or name; for staff.")]
OnNode = Annotated[_Reference | None, Query(description="A node's id or name; for staff.")]


def customer_id_of(services: Services, caller: Caller, reference: str | None) -> str | None:
    """The customer to whom all that is asked for belongs; None: to anybody."""
    if reference is None:
        return caller.principal.tenant
    caller.principal.require(Permission.CUSTOMERS_READ)
    found = customer_of(services, reference).customer_id
    return caller.principal.tenant or found


def plan_id_of(services: Services, caller: Caller, reference: str | None) -> str | None:
    if reference is None:
        return None
    caller.principal.require(Permission.CUSTOMERS_READ)
    return plan_of(services, reference).plan_id


def node_id_of(services: Services, caller: Caller, reference: str | None) -> str | None:
    if reference is None:
        return None
    caller.principal.require(Permission.NODES_READ)
    return node_named(services, reference).node_id
