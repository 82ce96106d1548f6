"""The same job for many servers, each asked for as if alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from api.auth import Caller, CallerDependency, GuardedRoute, permits
from api.bulk_requests import BulkJobs
from api.bulk_views import BulkItemView, BulkView
from api.dependencies import Services, ServicesDependency
from api.idempotency import Answer, IdempotencyKey, Once, once
from api.routes._common import cut, problems, server_of
from api.routes._filters import customer_id_of, node_id_of, plan_id_of
from api.schemas import JobDetailView
from api.submission import Submission, prepared, submit_within
from managed.domain.access import Permission, permission_for
from managed.domain.errors import Conflict, ManagedError, NotFound, Unavailable
from managed.domain.jobs import JobKind
from managed.domain.servers import Server
from managed.storage.database import writing

router = APIRouter(prefix="/v1/bulk", tags=["jobs"], route_class=GuardedRoute)


@router.post(
    "/jobs",
    response_model=BulkView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.JOBS_ASK)],
)
def submit_jobs(
    body: BulkJobs,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Ask for the same job on many servers. Each is asked for as by a request of its own, with the
    same refusals, in a transaction of its own and with its own entry in the audit log; one more
    entry is for the whole. With an `Idempotency-Key` a request that was cut off can be sent again:
    servers that have got their job keep it. A dry run tries each and takes it back; it takes no key
    into account and is not in the audit log.

    Rescues and restores are asked for one by one.
    """
    caller.principal.require(permission_for(JobKind(body.job.kind)))
    found, unknown, following = _chosen(services, caller, body)
    if body.dry_run:
        items = [_tried(services, caller, server, body) for server in found]
        return JSONResponse(_view(body, unknown + items, following).model_dump(mode="json"))
    whole = once(services, caller, idempotency_key, request, body)

    def ask() -> Sequence[BulkItemView]:
        return [_asked(whole, server, body) for server in found]

    def answer(_: Connection, items: Sequence[BulkItemView]) -> Answer:
        view = _view(body, [*unknown, *items], following)
        return Answer(
            200,
            view,
            facts={
                "kind": body.job.kind,
                "servers": body.servers.model_dump(mode="json", exclude_defaults=True),
                "submitted": view.submitted,
                "refused": view.refused,
            },
        )

    return whole.answer(ask, answer)


def _chosen(
    services: Services, caller: Caller, body: BulkJobs
) -> tuple[Sequence[Server], list[BulkItemView], str | None]:
    """The servers that are meant, what is said of names that nobody has, and the cursor to go on
    with.
    """
    if body.servers.names is not None:
        return *_named(services, caller, body.servers.names), None
    page, last = cut(_filtered(services, caller, body), body.limit)
    return page, [], last.name if last else None


def _named(
    services: Services, caller: Caller, names: Sequence[str]
) -> tuple[Sequence[Server], list[BulkItemView]]:
    found: dict[str, Server] = {}
    unknown = []
    for name in sorted(set(names)):
        try:
            server = server_of(services, caller, name)
            found[server.server_id] = server
        except NotFound as error:
            unknown.append(BulkItemView.refused(name, None, error))
    return sorted(found.values(), key=lambda server: server.name), unknown


def _filtered(services: Services, caller: Caller, body: BulkJobs) -> Sequence[Server]:
    choice = body.servers
    return services.inventory.find(
        customer_id=customer_id_of(services, caller, choice.customer),
        plan_id=plan_id_of(services, caller, choice.plan),
        node_id=node_id_of(services, caller, choice.node),
        status=choice.status,
        after_name=body.cursor or "",
        limit=body.limit + 1,
    )


def _tried(services: Services, caller: Caller, server: Server, body: BulkJobs) -> BulkItemView:
    """As if it were asked for; all of it is rolled back."""
    asked = prepared(services, caller, server, body.job)
    try:
        with writing(services.database) as connection:
            attempt = connection.begin_nested()
            try:
                submit_within(services, caller, connection, asked)
            finally:
                attempt.rollback()
    except Unavailable:
        raise
    except ManagedError as error:
        return BulkItemView.refused(server.name, server.server_id, error)
    return BulkItemView.submitted(server, None)


def _asked(whole: Once, server: Server, body: BulkJobs) -> BulkItemView:
    """By a request of its own, whose key follows from that of the whole."""
    services, caller = whole.services, whole.caller
    key = hashlib.sha256(f"{whole.key}\0{server.server_id}".encode()).hexdigest()
    one = replace(whole, key=key if whole.key else None, action="submit_job")

    def submit(connection: Connection, asked: Submission) -> Answer:
        job = submit_within(services, caller, connection, asked)
        facts = {"kind": job.kind.value, "name": server.name, "bulk": True}
        view = JobDetailView.of(job)
        return Answer(202, view, "", job.job_id, server.server_id, facts)

    try:
        document, _ = one.outcome(lambda: prepared(services, caller, server, body.job), submit)
    except (Conflict, NotFound) as error:
        return BulkItemView.refused(server.name, server.server_id, error)
    made = document["body"]
    return BulkItemView.submitted(server, str(made["id"]) if isinstance(made, dict) else None)


def _view(body: BulkJobs, items: Sequence[BulkItemView], following: str | None) -> BulkView:
    submitted = sum(item.refusal is None for item in items)
    return BulkView(
        dry_run=body.dry_run,
        submitted=submitted,
        refused=len(items) - submitted,
        items=list(items),
        next=following,
    )
