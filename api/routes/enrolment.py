"""Many existing servers at once, by a table in CSV: all of them, or none."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Connection

from api.auth import Caller, CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.enrolment_examples import TABLE
from api.enrolment_views import EnrolledRowView, EnrolledTableView, RowProblemView
from api.idempotency import Answer, IdempotencyKey, once
from api.routes._common import problems
from api.routes.customers import customer_of, plan_of
from managed.domain.access import Permission
from managed.domain.connections import KeyPair
from managed.domain.enrolment import (
    COLUMNS,
    MOST_ROWS,
    EnrolmentRow,
    RowProblem,
    enrolled_server,
    read_table,
)
from managed.domain.errors import InvalidInput, NotFound
from managed.domain.secrets import SecretPurpose

router = APIRouter(prefix="/v1/servers", tags=["servers"], route_class=GuardedRoute)

CSV = "text/csv"


@dataclass(frozen=True)
class Placed:
    """A row whose customer and plan are known by their ids."""

    row: EnrolmentRow
    customer_id: str | None
    plan_id: str | None


class _Digested(BaseModel):
    """Stands for the table where requests are compared."""

    table_sha256: str


@router.post(
    "/enrol/csv",
    status_code=201,
    response_model=EnrolledTableView,
    responses={
        **problems(409, 413),
        200: {"model": EnrolledTableView, "description": "What a dry run found."},
    },
    dependencies=[permits(Permission.SERVERS_WRITE)],
)
def enrol_servers(
    body: Annotated[
        bytes,
        Body(
            media_type=CSV,
            description=f"UTF-8, at most {MOST_ROWS} rows below a header that names the columns,"
            f" in any order: {', '.join(COLUMNS)}. Needed are name, address and host_key.",
            examples=[TABLE],
            json_schema_extra={"format": "binary"},
        ),
    ],
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    dry_run: Annotated[
        bool, Query(description="Only say what would happen; store nothing.")
    ] = False,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Take many existing servers under management by a table in CSV. Every row is checked first;
    everything that is wrong is listed by line and column (`data.errors`), and then nothing is
    stored. The answer has for each row the server's id and the line for its `authorized_keys`;
    go on with `enrol` jobs (`POST /v1/bulk/jobs`). Customers and plans are given by those who may
    place servers. A dry run takes no `Idempotency-Key` into account and is not in the audit log.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != CSV:
        raise InvalidInput(
            "the table is not sent as CSV",
            hint=f"Send its bytes as the body, with Content-Type: {CSV}.",
            field="Content-Type",
        )
    if dry_run:
        placed, wrong = _read(services, caller, body)
        return JSONResponse(_planned(placed, wrong).model_dump(mode="json"))

    def prepare() -> Sequence[tuple[Placed, KeyPair]]:
        placed, wrong = _read(services, caller, body)
        if wrong:
            raise InvalidInput(
                f"the table has {len(wrong)} {'problem' if len(wrong) == 1 else 'problems'};"
                f" the first: line {wrong[0].line}: {wrong[0].column} {wrong[0].message}",
                hint="Nothing was stored. Mend the lines that data.errors names; a dry run shows"
                " what is still wrong.",
                errors=[problem.as_json() for problem in wrong],
            )
        return [(one, services.new_key_pair()) for one in placed]

    def store(connection: Connection, prepared: Sequence[tuple[Placed, KeyPair]]) -> Answer:
        items = [_store(services, connection, placed, pair) for placed, pair in prepared]
        view = EnrolledTableView(dry_run=False, items=items, problems=[])
        return Answer(201, view, facts={"servers": {item.name: item.server_id for item in items}})

    digested = _Digested(table_sha256=hashlib.sha256(body).hexdigest())
    return once(services, caller, idempotency_key, request, digested).answer(prepare, store)


def _planned(placed: Sequence[Placed], wrong: Sequence[RowProblem]) -> EnrolledTableView:
    return EnrolledTableView(
        dry_run=True,
        items=[EnrolledRowView.planned(one.row) for one in placed],
        problems=[RowProblemView.of(problem) for problem in wrong],
    )


def _read(
    services: Services, caller: Caller, body: bytes
) -> tuple[Sequence[Placed], Sequence[RowProblem]]:
    """The rows that could be stored, and everything that is wrong, by line."""
    table = read_table(body)
    if any(row.customer or row.plan for row in table.rows):
        caller.principal.require(Permission.CUSTOMERS_WRITE)
    customers = {row.customer: _customer_id(services, row.customer) for row in table.rows}
    plans = {row.plan: _plan_id(services, row.plan) for row in table.rows}
    taken = services.inventory.taken_names([row.name for row in table.rows])
    placed: list[Placed] = []
    wrong = [*table.problems]
    for row in table.rows:
        found = _problems(row, taken, customers, plans)
        wrong.extend(found)
        if not found:
            placed.append(Placed(row, customers[row.customer] or None, plans[row.plan] or None))
    return placed, sorted(wrong, key=lambda problem: problem.line)


def _problems(
    row: EnrolmentRow,
    taken: set[str],
    customers: Mapping[str, str | None],
    plans: Mapping[str, str | None],
) -> list[RowProblem]:
    found = []
    if row.name in taken:
        found.append(RowProblem(row.line, "name", "a server of this name exists"))
    if customers[row.customer] is None:
        found.append(RowProblem(row.line, "customer", "there is no such customer"))
    if plans[row.plan] is None:
        found.append(RowProblem(row.line, "plan", "there is no such plan"))
    return found


def _customer_id(services: Services, reference: str) -> str | None:
    """Empty for none; None where there is no such customer."""
    try:
        return customer_of(services, reference).customer_id if reference else ""
    except NotFound:
        return None


def _plan_id(services: Services, reference: str) -> str | None:
    """Empty for none; None where there is no such plan."""
    try:
        return plan_of(services, reference).plan_id if reference else ""
    except NotFound:
        return None


def _store(
    services: Services, connection: Connection, placed: Placed, pair: KeyPair
) -> EnrolledRowView:
    row, now = placed.row, services.clock()
    server = enrolled_server(
        str(uuid.uuid4()),
        now,
        name=row.name,
        address=row.address,
        ssh_port=row.ssh_port,
        ssh_user=row.ssh_user,
        host_key=row.host_key,
        operating_system=row.operating_system,
    )
    services.inventory.add(connection, server, now)
    services.vault.keep_within(
        connection, server.server_id, SecretPurpose.LOGIN_KEY, pair.private_key
    )
    if placed.customer_id or placed.plan_id:
        services.customers.place(connection, server, placed.customer_id, placed.plan_id, now)
    return EnrolledRowView.stored(row, server, pair.public_key)
