"""Servers: making, enrolling, reading and deleting them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from api.auth import Caller, CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.idempotency import Answer, IdempotencyKey, once
from api.requests import Enrolment, NewServer
from api.routes._common import Limit, Reference, ServerReference, cut, problems, server_of
from api.routes.nodes import node_named
from api.schemas import (
    EnrolledServerView,
    JobDetailView,
    ServerDetailView,
    ServerView,
    SnapshotView,
    SubmittedServerView,
)
from api.views import Page
from managed.domain.access import Permission
from managed.domain.connections import KeyPair
from managed.domain.errors import InvalidInput
from managed.domain.jobs import JobKind
from managed.domain.public_keys import checked_public_key
from managed.domain.secrets import SecretPurpose
from managed.domain.servers import (
    Node,
    Server,
    ServerOrigin,
    ServerSpec,
    ServerStatus,
    checked_address,
    checked_name,
    checked_user,
    disk_serial_for,
)
from managed.domain.submissions import chosen_forwards, mac_address, ssh_host_port
from managed.storage.search import search_servers

router = APIRouter(prefix="/v1/servers", tags=["servers"], route_class=GuardedRoute)

Search = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=253,
        description="How the name, the address or the customer's name begins, in whatever case.",
    ),
]
NameCursor = Annotated[Reference | None, Query(description="`next` of the page before.")]


@router.post(
    "",
    status_code=202,
    response_model=SubmittedServerView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.SERVERS_WRITE)],
)
def create_server(
    body: NewServer,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Make a server on a node and install an operating system on it. The answer holds the server
    and its `create` job; both are stored, or neither. A server that cannot be created is removed
    again by that job, and its name is free.
    """
    checked_name(body.name)
    keys = [
        checked_public_key(line, f"authorized_keys.{index}")
        for index, line in enumerate(body.authorized_keys)
    ]

    def create(connection: Connection, node: Node) -> Answer:
        server = _new_server(services, connection, node, body)
        services.inventory.add(connection, server, services.clock())
        new = services.new_job(
            server.server_id, JobKind.CREATE, {"authorized_keys": keys}, caller.name
        )
        job = services.queue.submit_within(connection, new, services.clock())
        view = SubmittedServerView(server=ServerView.of(server), job=JobDetailView.of(job))
        return Answer(
            202, view, f"/v1/jobs/{job.job_id}", job.job_id, server.server_id, {"name": server.name}
        )

    return once(services, caller, idempotency_key, request, body).answer(
        lambda: _node(services, body.node_id), create
    )


@router.post(
    "/enrol",
    status_code=201,
    response_model=EnrolledServerView,
    responses=problems(409, 413),
    dependencies=[permits(Permission.SERVERS_WRITE)],
)
def enrol_server(
    body: Enrolment,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Take an existing server under management, in three steps:

    1. this request stores the server with its pinned host key and answers a public key made for
       it (`GET /v1/host-key` shows what the server offers, to be compared with what its console
       or its provider says; nothing is trusted on first use);
    2. put the answered line into the login's `authorized_keys` on the server;
    3. `POST /v1/servers/{server}/jobs` with `{"kind": "enrol"}` logs in, prepares the server and
       looks at it. It can be asked for again until it succeeds.

    No private key is ever sent to us; ours never leaves the service.
    """
    server = _enrolled_server(body, services.clock())

    def add(connection: Connection, pair: KeyPair) -> Answer:
        # In one transaction: no server without the key that opens it, no key without its server.
        services.inventory.add(connection, server, services.clock())
        services.vault.keep_within(
            connection, server.server_id, SecretPurpose.LOGIN_KEY, pair.private_key
        )
        view = EnrolledServerView(
            server=ServerView.of(server),
            public_key=pair.public_key,
            authorized_keys_line=f"{pair.public_key} managed",
            next=f"/v1/servers/{server.server_id}/jobs",
        )
        return Answer(
            201,
            view,
            f"/v1/servers/{server.server_id}",
            subject=server.server_id,
            facts={"name": server.name},
        )

    return once(services, caller, idempotency_key, request, body).answer(services.new_key_pair, add)


@router.get("", responses=problems(), dependencies=[permits(Permission.SERVERS_READ)])
def list_servers(
    services: ServicesDependency,
    caller: CallerDependency,
    search: Search = None,
    limit: Limit = 50,
    cursor: NameCursor = None,
) -> Page[ServerView]:
    """Servers under management, by name."""
    found = _found(services, caller, search, cursor or "", limit + 1)
    page, last = cut(found, limit)
    return Page[ServerView](
        items=[ServerView.of(server) for server in page], next=last.name if last else None
    )


@router.get("/{server}", responses=problems(404), dependencies=[permits(Permission.SERVERS_READ)])
def read_server(
    server: ServerReference, services: ServicesDependency, caller: CallerDependency
) -> ServerDetailView:
    """One server, by its id or name, with its open rescue session if there is one."""
    found = server_of(services, caller, server)
    return ServerDetailView.with_session(found, services.sessions.current(found.server_id))


@router.delete(
    "/{server}",
    status_code=202,
    response_model=JobDetailView,
    responses=problems(404, 409),
    dependencies=[permits(Permission.SERVERS_DELETE)],
)
def delete_server(
    server: ServerReference,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Take a server out of management; one on a node of ours is destroyed, disk included. Its
    backups stay. Answers the `delete` job. A patch, backup or other routine job on it is asked to
    stop first.
    """

    def delete(connection: Connection, found: Server) -> Answer:
        new = services.new_job(found.server_id, JobKind.DELETE, {}, caller.name)
        job = services.queue.submit_within(connection, new, services.clock())
        return Answer(
            202,
            JobDetailView.of(job),
            f"/v1/jobs/{job.job_id}",
            job.job_id,
            found.server_id,
            {"name": found.name},
        )

    return once(services, caller, idempotency_key, request, None).answer(
        lambda: server_of(services, caller, server), delete
    )


@router.get(
    "/{server}/snapshots",
    tags=["snapshots"],
    responses=problems(404),
    dependencies=[permits(Permission.SERVERS_READ)],
)
def list_snapshots(
    server: ServerReference, services: ServicesDependency, caller: CallerDependency
) -> Page[SnapshotView]:
    """The server's backups, newest first. One without `verified_at` is no backup yet."""
    found = services.catalogue.of_server(server_of(services, caller, server).server_id)
    return Page[SnapshotView](items=[SnapshotView.of(record) for record in found])


def _found(
    services: Services, caller: Caller, search: str | None, after_name: str, limit: int
) -> Sequence[Server]:
    tenant = caller.principal.tenant
    if search is None:
        return services.inventory.find(customer_id=tenant, after_name=after_name, limit=limit)
    return search_servers(
        services.database, search, customer_id=tenant, after_name=after_name, limit=limit
    )


def _enrolled_server(body: Enrolment, now: datetime) -> Server:
    """InvalidInput for what cannot be a name, an address, a login or a host key."""
    return Server(
        server_id=str(uuid.uuid4()),
        name=checked_name(body.name),
        origin=ServerOrigin.ENROLLED,
        status=ServerStatus.NEW,
        address=checked_address(body.address),
        ssh_port=body.ssh_port,
        ssh_user=checked_user(body.ssh_user),
        host_key=checked_public_key(body.host_key, "host_key"),
        operating_system=body.operating_system,
        created_at=now,
    )


def _new_server(services: Services, connection: Connection, node: Node, body: NewServer) -> Server:
    server_id = str(uuid.uuid4())
    forwards = chosen_forwards(
        [(forward.guest_port, forward.host_port) for forward in body.forwards],
        services.inventory.used_host_ports_within(connection, node.node_id),
        services.host_ports(node),
    )
    return Server(
        server_id=server_id,
        name=body.name,
        origin=ServerOrigin.CREATED,
        status=ServerStatus.NEW,
        address="127.0.0.1",
        ssh_port=ssh_host_port(forwards),
        ssh_user="root",
        host_key="",
        operating_system=body.operating_system.value,
        node_id=node.node_id,
        spec=ServerSpec(
            server_id=server_id,
            name=body.name,
            vcpus=body.vcpus,
            memory_mib=body.memory_mib,
            disk_gib=body.disk_gib,
            disk_serial=disk_serial_for(server_id),
            mac=mac_address(os.urandom(3)),
            forwards=forwards,
        ),
        created_at=services.clock(),
    )


def _node(services: Services, reference: str | None) -> Node:
    if reference is not None:
        return node_named(services, reference)
    nodes = services.inventory.nodes()
    if len(nodes) == 1:
        return nodes[0]
    if not nodes:
        raise InvalidInput(
            "there is no node to put a server on", hint="POST /v1/nodes adds one.", field="node_id"
        )
    raise InvalidInput(
        "there is more than one node", hint="Name one in the field node_id.", field="node_id"
    )
