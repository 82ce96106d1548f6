"""Which windows count for nobody, because of what their plan, customer or server is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, select

from managed.domain.customers import PlanKind
from managed.domain.servers import ServerStatus
from managed.domain.windows import (
    Window,
    WindowOwner,
    customer_limitation,
    plan_limitation,
    server_limitation,
)
from managed.storage.tables import plans, servers


def owner_limitations(
    connection: Connection, windows: Sequence[Window]
) -> Mapping[str, str | None]:
    """By window: why it counts for no server, or None where it does. For a page of windows."""
    ids = {
        owner: sorted({window.owner_id for window in windows if window.owner is owner})
        for owner in WindowOwner
    }
    of_owners: dict[tuple[WindowOwner, str], str | None] = {
        **_of_plans(connection, ids[WindowOwner.PLAN]),
        **_of_customers(connection, ids[WindowOwner.CUSTOMER]),
        **_of_servers(connection, ids[WindowOwner.SERVER]),
    }
    return {window.window_id: of_owners.get((window.owner, window.owner_id)) for window in windows}


def server_limitations(connection: Connection, ids: Iterable[str]) -> Mapping[str, str | None]:
    """By server: why no window counts for it, or None where one may."""
    query = (
        select(servers.c.id, servers.c.status, plans.c.kind)
        .outerjoin(plans, plans.c.id == servers.c.plan_id)
        .where(servers.c.id.in_(ids))
    )
    return {
        row.id: server_limitation(
            ServerStatus(row.status), PlanKind(row.kind) if row.kind else None
        )
        for row in connection.execute(query)
    }


def _of_plans(
    connection: Connection, ids: Iterable[str]
) -> Mapping[tuple[WindowOwner, str], str | None]:
    query = select(plans.c.id, plans.c.kind).where(plans.c.id.in_(ids))
    return {
        (WindowOwner.PLAN, row.id): plan_limitation(PlanKind(row.kind))
        for row in connection.execute(query)
    }


def _of_customers(
    connection: Connection, ids: Sequence[str]
) -> Mapping[tuple[WindowOwner, str], str | None]:
    query = (
        select(servers.c.customer_id, servers.c.status, plans.c.kind)
        .join(plans, plans.c.id == servers.c.plan_id)
        .where(servers.c.customer_id.in_(ids))
        .distinct()
    )
    reasons: dict[str, list[str | None]] = {customer_id: [] for customer_id in ids}
    for row in connection.execute(query):
        reasons[row.customer_id].append(
            server_limitation(ServerStatus(row.status), PlanKind(row.kind))
        )
    return {
        (WindowOwner.CUSTOMER, customer_id): customer_limitation(of_servers)
        for customer_id, of_servers in reasons.items()
    }


def _of_servers(
    connection: Connection, ids: Iterable[str]
) -> Mapping[tuple[WindowOwner, str], str | None]:
    return {
        (WindowOwner.SERVER, server_id): reason
        for server_id, reason in server_limitations(connection, ids).items()
    }
