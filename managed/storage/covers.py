"""Which servers windows count for, now and lately: those under management, on a managed plan.

Whoever places a server or changes a plan's kind keeps, in the same transaction, how it was until
then. The clock judges openings when they have closed, and a clock that was dead much later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, literal, or_, select

from managed.domain.coverage import CoverPeriod, Period
from managed.domain.customers import PlanKind
from managed.domain.servers import ServerStatus
from managed.domain.windows import Covered
from managed.storage.database import inserting
from managed.storage.tables import past_management, past_placements, plans, servers
from managed.storage.tables.columns import UtcDateTime

# One that is being created is in a rescue session before it is under management; one that a worker
# of an older version has activated has no time of it.
IS_UNDER_MANAGEMENT: Final = and_(
    servers.c.status.not_in([ServerStatus.NEW.value, ServerStatus.DELETED.value]),
    or_(servers.c.placed_since.is_not(None), servers.c.status != ServerStatus.RESCUE.value),
)
_PLACED: Final = select(
    servers.c.id.label("server_id"),
    servers.c.customer_id,
    servers.c.plan_id,
    func.coalesce(servers.c.placed_since, servers.c.created_at).label("since"),
).where(IS_UNDER_MANAGEMENT, servers.c.plan_id.is_not(None))
_MANAGED: Final = select(
    plans.c.id.label("plan_id"),
    func.coalesce(plans.c.kind_since, plans.c.created_at).label("since"),
).where(plans.c.kind == PlanKind.MANAGED.value)


def keep_placements(connection: Connection, which: ColumnElement[bool], until: datetime) -> None:
    """Of these servers, which the caller places elsewhere."""
    ending = _PLACED.where(which, _PLACED.selected_columns.since < until)
    connection.execute(
        inserting(connection, past_placements)
        .from_select(
            ["server_id", "customer_id", "plan_id", "since", "until"],
            ending.add_columns(literal(until, UtcDateTime)),
        )
        .on_conflict_do_nothing()
    )


def keep_management(connection: Connection, plan_id: str, until: datetime) -> None:
    """If the plan, whose kind the caller changes, is a managed one."""
    ending = _MANAGED.where(plans.c.id == plan_id, _MANAGED.selected_columns.since < until)
    connection.execute(
        inserting(connection, past_management)
        .from_select(["plan_id", "since", "until"], ending.add_columns(literal(until, UtcDateTime)))
        .on_conflict_do_nothing()
    )


def cover_periods(connection: Connection, after: datetime) -> Sequence[CoverPeriod]:
    """All but those that had ended by then, and none of servers that are deleted now. What is
    present is read first: a server that is moved meanwhile is seen twice as it was, and never as
    nothing.
    """
    managed = _managed_periods(connection, after)
    placed: Select[Any] = _PLACED.where(servers.c.plan_id.in_(managed.keys()))
    placed = placed.add_columns(literal(None, UtcDateTime))
    past: Select[Any] = (
        select(past_placements)
        .join(servers, servers.c.id == past_placements.c.server_id)
        .where(past_placements.c.until > after, servers.c.status != ServerStatus.DELETED.value)
    )
    return [
        CoverPeriod(Covered(server_id, customer_id, plan_id), covered)
        for rows in (connection.execute(placed), connection.execute(past))
        for server_id, customer_id, plan_id, since, until in rows
        for management in managed.get(plan_id, ())
        if (covered := Period(since, until).within(management)) is not None
    ]


def forget_covers(connection: Connection, before: datetime) -> None:
    """Those that had ended by then."""
    for table in (past_placements, past_management):
        connection.execute(delete(table).where(table.c.until <= before))


def _managed_periods(connection: Connection, after: datetime) -> Mapping[str, Sequence[Period]]:
    """When plans were managed ones."""
    past = select(past_management).where(past_management.c.until > after)
    found: dict[str, list[Period]] = defaultdict(list)
    for row in connection.execute(_MANAGED):
        found[row.plan_id].append(Period(row.since, None))
    for row in connection.execute(past):
        found[row.plan_id].append(Period(row.since, row.until))
    return found
