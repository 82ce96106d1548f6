"""Customers and plans, and which servers are theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Row,
    Table,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from managed.domain.coverage import CoverPeriod
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.errors import AlreadyExists, Conflict, NotFound
from managed.domain.servers import Server
from managed.domain.windows import Covered
from managed.storage.covers import (
    IS_UNDER_MANAGEMENT,
    cover_periods,
    forget_covers,
    keep_management,
    keep_placements,
)
from managed.storage.database import reading, writing
from managed.storage.tables import customers, plans, servers, users, windows
from managed.storage.tables.columns import UtcDateTime


class Customers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- customers

    def add(self, connection: Connection, customer: Customer, now: datetime) -> None:
        """Insert inside the caller's transaction; AlreadyExists when the name is taken."""
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(customers).values(
                        id=customer.customer_id,
                        name=customer.name,
                        email=customer.email,
                        created_at=now,
                    )
                )
        except IntegrityError as error:
            raise AlreadyExists(f"a customer named {customer.name} exists", field="name") from error

    def named(self, reference: str) -> Customer | None:
        """The customer of this id or name."""
        query = select(customers).where(
            or_(customers.c.id == reference, customers.c.name == reference)
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return _customer(row) if row else None

    def find(
        self, *, email: str | None = None, after_name: str = "", limit: int = 50
    ) -> Sequence[Customer]:
        """By name, those after `after_name`; with an address those who have it."""
        query = (
            select(customers)
            .where(customers.c.name > after_name)
            .order_by(customers.c.name)
            .limit(limit)
        )
        if email is not None:
            query = query.where(customers.c.email == email)
        with reading(self._engine) as connection:
            return [_customer(row) for row in connection.execute(query)]

    def change(self, connection: Connection, customer: Customer) -> None:
        """AlreadyExists when the name is another's."""
        try:
            with connection.begin_nested():
                connection.execute(
                    update(customers)
                    .where(customers.c.id == customer.customer_id)
                    .values(name=customer.name, email=customer.email)
                )
        except IntegrityError as error:
            raise AlreadyExists(f"a customer named {customer.name} exists", field="name") from error

    def locked(self, connection: Connection, customer_id: str) -> Customer:
        """As it is now; nobody else changes it until the caller's transaction ends. NotFound."""
        query = select(customers).where(customers.c.id == customer_id).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"there is no customer {customer_id}")
        return _customer(row)

    def remove(self, connection: Connection, customer: Customer) -> None:
        """Conflict, with what there is, while something belongs to them. Servers that are deleted
        count: their jobs and backups stay on record as the customer's.
        """
        owned = {
            "servers": servers.c.customer_id,
            "windows": windows.c.customer_id,
            "users": users.c.customer_id,
        }
        _require_unused(connection, customer.name, owned, customer.customer_id)
        _remove(connection, customers, customer.customer_id, customer.name)

    # -- plans

    def add_plan(self, connection: Connection, plan: Plan, now: datetime) -> None:
        """Insert inside the caller's transaction; AlreadyExists when the name is taken."""
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(plans).values(
                        id=plan.plan_id,
                        name=plan.name,
                        kind=plan.kind.value,
                        only_security=plan.only_security,
                        created_at=now,
                    )
                )
        except IntegrityError as error:
            raise AlreadyExists(f"a plan named {plan.name} exists", field="name") from error

    def change_plan(self, connection: Connection, plan: Plan, now: datetime) -> None:
        """AlreadyExists when the name is another's."""
        if self.locked_plan(connection, plan.plan_id).kind is not plan.kind:
            keep_management(connection, plan.plan_id, now)
            connection.execute(
                update(plans).where(plans.c.id == plan.plan_id).values(kind_since=now)
            )
        try:
            with connection.begin_nested():
                connection.execute(
                    update(plans)
                    .where(plans.c.id == plan.plan_id)
                    .values(name=plan.name, kind=plan.kind.value, only_security=plan.only_security)
                )
        except IntegrityError as error:
            raise AlreadyExists(f"a plan named {plan.name} exists", field="name") from error

    def locked_plan(self, connection: Connection, plan_id: str) -> Plan:
        """As it is now; nobody else changes it until the caller's transaction ends. NotFound."""
        query = select(plans).where(plans.c.id == plan_id).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"there is no plan {plan_id}")
        return _plan(row)

    def remove_plan(self, connection: Connection, plan: Plan) -> None:
        """Conflict, with what there is, while servers are on it or windows are its own."""
        owned = {"servers": servers.c.plan_id, "windows": windows.c.plan_id}
        _require_unused(connection, plan.name, owned, plan.plan_id)
        _remove(connection, plans, plan.plan_id, plan.name)

    def plan_of(self, server: Server) -> Plan | None:
        """The plan that the server is on; None for the provider's own."""
        with reading(self._engine) as connection:
            row = connection.execute(
                select(plans).where(plans.c.id == server.plan_id)
            ).one_or_none()
        return _plan(row) if row else None

    def plans(self) -> Sequence[Plan]:
        """All of them, by name."""
        with reading(self._engine) as connection:
            return [_plan(row) for row in connection.execute(select(plans).order_by(plans.c.name))]

    # -- whose servers

    def place(
        self,
        connection: Connection,
        server: Server,
        customer_id: str | None,
        plan_id: str | None,
        now: datetime,
    ) -> Server:
        """Make a server a customer's, on a plan; None: the provider's own, on none. Openings that
        began before count for it only if it stays where it is.
        """
        elsewhere = and_(
            servers.c.id == server.server_id,
            or_(
                servers.c.customer_id.is_distinct_from(customer_id),
                servers.c.plan_id.is_distinct_from(plan_id),
            ),
        )
        keep_placements(connection, elsewhere, now)
        since = case((IS_UNDER_MANAGEMENT, literal(now, UtcDateTime)))
        connection.execute(
            update(servers)
            .where(elsewhere)
            .values(customer_id=customer_id, plan_id=plan_id, placed_since=since)
        )
        return replace(server, customer_id=customer_id, plan_id=plan_id)

    def cover_periods(self, after: datetime) -> Sequence[CoverPeriod]:
        """Who was covered and when, but for what had ended by then."""
        with reading(self._engine) as connection:
            return cover_periods(connection, after)

    def forget_covers(self, before: datetime) -> None:
        """What had ended by then."""
        with writing(self._engine) as connection:
            forget_covers(connection, before)

    def covered(self) -> Sequence[tuple[Covered, Plan]]:
        """The servers under management that are on a managed plan, with it."""
        managed = select(plans).where(plans.c.kind == PlanKind.MANAGED.value)
        with reading(self._engine) as connection:
            by_id = {row.id: _plan(row) for row in connection.execute(managed)}
            query = (
                select(servers.c.id, servers.c.customer_id, servers.c.plan_id)
                .where(servers.c.plan_id.in_(by_id.keys()), IS_UNDER_MANAGEMENT)
                .order_by(servers.c.id)
            )
            return [
                (
                    Covered(row.id, row.customer_id, row.plan_id),
                    by_id[row.plan_id],
                )
                for row in connection.execute(query)
            ]


def _require_unused(
    connection: Connection, name: str, referring: Mapping[str, Column[Any]], owner_id: str
) -> None:
    counts: dict[str, int] = {
        what: connection.execute(
            select(func.count()).select_from(column.table).where(column == owner_id)
        ).scalar_one()
        for what, column in referring.items()
    }
    used = [f"{count} {what}" for what, count in counts.items() if count]
    if used:
        raise Conflict(
            f"{name} is still needed by {', '.join(used)}",
            hint="Give them to another one, or remove them, first.",
            **counts,
        )


def _remove(connection: Connection, table: Table, row_id: str, name: str) -> None:
    """Conflict when something refers to it that nobody has counted."""
    try:
        with connection.begin_nested():
            connection.execute(delete(table).where(table.c.id == row_id))
    except IntegrityError as error:
        raise Conflict(f"{name} is still on record elsewhere, and has to stay") from error


def _customer(row: Row[Any]) -> Customer:
    return Customer(row.id, row.name, row.email)


def _plan(row: Row[Any]) -> Plan:
    return Plan(row.id, row.name, PlanKind(row.kind), row.only_security)
