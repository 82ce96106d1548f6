"""The HTTP API: puts routes, errors and limits together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from api import documentation, errors
from api.auth import bearer
from api.dependencies import services_of
from api.limits import BodyLimit, SecurityHeaders
from api.panel.assets import address_of
from api.panel.installing import install_panel
from api.queries import known_query
from api.readiness import Probe, Readiness
from api.request_log import RequestLog
from api.routes import (
    access,
    bulk,
    changes,
    customers,
    enrolment,
    invitations,
    jobs,
    nodes,
    notifications,
    operations,
    requests,
    rescue_sessions,
    servers,
    service,
    snapshots,
    webhooks,
    windows,
)
from api.sse import Followers
from managed.wiring import Installation

_DESCRIPTION = """
Patches, hardens, backs up, rescues and restores the servers of managed-VPS plans.

Users have one of three **roles**: customers see what is theirs, support works on everybody's
servers, admins decide about people, plans and nodes. A token can be limited to some permissions.
Every change is entered into the audit log; say why with `X-Reason`, such as a ticket's number.

Work is done by **jobs**: ask for one, follow its events, read its steps. Every request needs
`Authorization: Bearer <token>`, except `/healthz`, `/readyz`, this document, and the helpdesk's
webhook, which is signed. Requests that start something take an `Idempotency-Key`. Every error is an
RFC 9457 problem document (`application/problem+json`) with a stable `code`, a `hint`, and the
particulars in `data`.
"""

_TAGS = [
    {"name": "servers", "description": "VPSs under management: made here, or enrolled."},
    {"name": "jobs", "description": "Work on one server: durable, resumable, watched live."},
    {"name": "snapshots", "description": "Backups; good when verified, not before."},
    {"name": "customers", "description": "Who owns servers."},
    {"name": "plans", "description": "What is covered."},
    {"name": "windows", "description": "When work starts by itself, and the pause."},
    {"name": "notifications", "description": "Who is told of what went wrong."},
    {"name": "requests", "description": "What tickets ask for: proposed, then decided by staff."},
    {"name": "nodes", "description": "Hypervisor hosts."},
    {"name": "access", "description": "Users, their tokens, and the log of who did what."},
    {"name": "service", "description": "The service itself."},
]


class ManagedApi(FastAPI):
    """FastAPI documents every model as application/json; our errors are problem documents."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            for path in document["paths"].values():
                for operation in path.values():
                    for status, answer in operation["responses"].items():
                        if status >= "400":
                            content = answer["content"]
                            content[errors.MEDIA_TYPE] = content.pop("application/json")
            self.openapi_schema = document
        return self.openapi_schema


def create_app(
    installation: Installation,
    send: Callable[[str], None],
    probes: Mapping[str, Probe] = MappingProxyType({}),
) -> FastAPI:
    """The application over an installation; `send` tells the workers of a job (its id). `probes`
    ask for what is needed beside the installation's own parts.
    """
    services = services_of(installation, send)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.followers = Followers(services)
        looking = asyncio.create_task(app.state.followers.run())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    app = ManagedApi(
        title="managed",
        version="1",
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    app.state.readiness = Readiness({**installation.probes(), **probes})
    errors.install(app)
    install_panel(app)
    documentation.install(app, address_of("panel.css"))
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestLog)
    app.include_router(service.router, dependencies=[Depends(known_query)])
    app.include_router(operations.router, dependencies=[Depends(known_query)])
    app.include_router(webhooks.router, dependencies=[Depends(known_query)])
    for router in (
        servers.router,
        snapshots.router,
        enrolment.router,
        service.guarded,
        jobs.router,
        bulk.router,
        customers.router,
        changes.router,
        windows.router,
        notifications.router,
        requests.router,
        nodes.router,
        rescue_sessions.router,
        access.router,
        invitations.router,
    ):
        app.include_router(router, dependencies=[Depends(bearer), Depends(known_query)])
    return app


def _operation_id(route: APIRoute) -> str:
    return route.endpoint.__name__
