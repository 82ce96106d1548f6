"""Nodes: the hypervisor hosts that servers run on."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from api.auth import CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.idempotency import Answer, IdempotencyKey, once
from api.requests import NewNode
from api.routes._common import Limit, Reference, cut, problems
from api.schemas import NodeView
from api.views import Page
from managed.domain.access import Permission
from managed.domain.errors import NotFound
from managed.domain.servers import Node, checked_name

router = APIRouter(prefix="/v1/nodes", tags=["nodes"], route_class=GuardedRoute)


@router.post(
    "",
    status_code=201,
    response_model=NodeView,
    responses=problems(409, 413),
    dependencies=[permits(Permission.NODES_WRITE)],
)
def add_node(
    body: NewNode,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Take a node under management. Its libvirt is asked first, and its folder is tried: a node
    on which no server could be made is refused, and nothing is stored.
    """

    def prepare() -> Node:
        node = Node(str(uuid.uuid4()), checked_name(body.name), body.libvirt_uri, body.storage_dir)
        services.check_node(node)
        return node

    def add(connection: Connection, node: Node) -> Answer:
        services.inventory.add_node_within(connection, node, services.clock())
        return Answer(
            201,
            NodeView.of(node),
            f"/v1/nodes/{node.node_id}",
            subject=node.node_id,
            facts={"name": node.name, "libvirt_uri": node.libvirt_uri},
        )

    return once(services, caller, idempotency_key, request, body).answer(prepare, add)


@router.get("", responses=problems(), dependencies=[permits(Permission.NODES_READ)])
def list_nodes(
    services: ServicesDependency,
    limit: Limit = 50,
    cursor: Annotated[Reference | None, Query(description="`next` of the page before.")] = None,
) -> Page[NodeView]:
    """Nodes, by name."""
    found = [node for node in services.inventory.nodes() if node.name > (cursor or "")]
    page, last = cut(found, limit)
    return Page[NodeView](
        items=[NodeView.of(node) for node in page], next=last.name if last else None
    )


@router.get("/{node_id}", responses=problems(404), dependencies=[permits(Permission.NODES_READ)])
def read_node(node_id: Reference, services: ServicesDependency) -> NodeView:
    """One node, by its id or name."""
    return NodeView.of(node_named(services, node_id))


def node_named(services: Services, reference: str) -> Node:
    """The node of this id or name; NotFound."""
    for node in services.inventory.nodes():
        if reference in (node.node_id, node.name):
            return node
    raise NotFound(f"there is no node {reference!r}", hint="GET /v1/nodes lists them.")
