"""Which servers windows count for, now and lately: those under management on a managed plan.

Whoever places a server or changes a plan's kind keeps, in the same transaction, how it was until
then. The clock judges openings when they have closed, and a clock that was dead much later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    func,
    literal,
    or_,
    select,
)

from managed.domain.coverage import CoverPeriod
from managed.domain.customers import PlanKind
from managed.domain.servers import ServerStatus
from managed.domain.windows import Covered
from managed.storage.database import inserting
from managed.storage.tables import past_covers, plans, servers
from managed.storage.tables.columns import UtcDateTime

# One that is being created is in a rescue session before it is under management; one that a worker
# of an older version has activated has no time of it.
IS_UNDER_MANAGEMENT: Final = and_(
    servers.c.status.not_in([ServerStatus.NEW.value, ServerStatus.DELETED.value]),
    or_(servers.c.covered_since.is_not(None), servers.c.status != ServerStatus.RESCUE.value),
)
_SERVERS_OWN: Final = func.coalesce(servers.c.covered_since, servers.c.created_at)
_PLANS_OWN: Final = func.coalesce(plans.c.kind_since, plans.c.created_at)
_SINCE: Final = case((_SERVERS_OWN > _PLANS_OWN, _SERVERS_OWN), else_=_PLANS_OWN)
_COVERED: Final = (
    select(servers.c.id, servers.c.customer_id, servers.c.plan_id, _SINCE.label("since"))
    .join(plans, plans.c.id == servers.c.plan_id)
    .where(IS_UNDER_MANAGEMENT, plans.c.kind == PlanKind.MANAGED.value)
)


def end_covers(connection: Connection, which: ColumnElement[bool], now: datetime) -> None:
    """Keep how these servers were covered until now; the caller changes it."""
    began_before = _COVERED.selected_columns.since < now
    ending = _COVERED.add_columns(literal(now, UtcDateTime)).where(which, began_before)
    names = ["server_id", "customer_id", "plan_id", "since", "until"]
    connection.execute(
        inserting(connection, past_covers).from_select(names, ending).on_conflict_do_nothing()
    )


def cover_periods(connection: Connection, after: datetime) -> Sequence[CoverPeriod]:
    """All but those that had ended by then. The present ones are read first: a server that is
    moved meanwhile is seen as it was, or as both, and never as neither.
    """
    found = {(row.id, row.since): _period(row.id, row) for row in connection.execute(_COVERED)}
    past = select(past_covers).where(past_covers.c.until > after)
    for row in connection.execute(past):
        found[row.server_id, row.since] = _period(row.server_id, row, row.until)
    return list(found.values())


def forget_covers(connection: Connection, before: datetime) -> None:
    """Those that had ended by then."""
    connection.execute(delete(past_covers).where(past_covers.c.until <= before))


def _period(server_id: str, row: Any, until: datetime | None = None) -> CoverPeriod:
    return CoverPeriod(Covered(server_id, row.customer_id, row.plan_id), row.since, until)
