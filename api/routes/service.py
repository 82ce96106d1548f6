"""Routes about the service itself, and the host key of a server that is to be enrolled."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import text

from api.auth import GuardedRoute, permits
from api.dependencies import ServicesDependency
from api.requests import Address
from api.routes._common import problems
from api.schemas import HealthView, HostKeyView
from managed.domain.access import Permission
from managed.domain.public_keys import fingerprint
from managed.domain.servers import checked_address
from managed.storage.database import reading

router = APIRouter()
guarded = APIRouter(prefix="/v1", route_class=GuardedRoute)


@router.get("/healthz", tags=["service"], responses={503: problems()[503]})
def read_health(services: ServicesDependency) -> HealthView:
    """Does the service answer, its database included? Open to everybody."""
    with reading(services.database) as connection:
        connection.execute(text("SELECT 1"))
    return HealthView(status="ok")


@guarded.get(
    "/host-key",
    tags=["servers"],
    responses=problems(),
    dependencies=[permits(Permission.SERVERS_WRITE)],
)
def read_host_key(
    services: ServicesDependency,
    address: Annotated[Address, Query(examples=["192.0.2.10"])],
    port: Annotated[int, Query(ge=1, le=65535)] = 22,
) -> HostKeyView:
    """The host key that a server shows now. It is **not trusted**: anybody on the way could show
    one. Compare its fingerprint over another channel (the server's console, its provider) before
    you enrol the server with it. Nothing is pinned by this.
    """
    checked = checked_address(address)
    host_key = services.shown_host_key(checked, port)
    return HostKeyView(
        address=checked, port=port, host_key=host_key, fingerprint=fingerprint(host_key)
    )
