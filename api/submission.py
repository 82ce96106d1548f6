"""Asking for a job on a server: the same refusals whether one is asked for or many."""

from __future__ import annotations

from sqlalchemy import Connection

from api.auth import Caller
from api.dependencies import Services
from api.requests import JobRequest, NewRestore, NewRestoreFiles
from api.routes._common import server_of
from managed.domain.customers import plan_refusal
from managed.domain.errors import ManagedError, NotFound, Paused
from managed.domain.file_restores import checked_paths, source_refusal
from managed.domain.jobs import Job, JobKind
from managed.domain.servers import Server
from managed.domain.submissions import restore_refusal, submission_refusal


def refusal_of(
    services: Services, caller: Caller, server: Server, body: JobRequest
) -> ManagedError | None:
    """Why the server's plan, its state or its backups do not allow such a job; or None."""
    session = services.sessions.current(server.server_id)
    kind = JobKind(body.kind)
    refusal: ManagedError | None = plan_refusal(server, services.customers.plan_of(server), kind)
    refusal = refusal or submission_refusal(server, kind, session)
    if refusal is None and isinstance(body, NewRestore):
        records = services.catalogue.of_server(server.server_id)
        refusal = restore_refusal(server, records, body.snapshot_id, body.as_of)
    if refusal is None and isinstance(body, NewRestoreFiles):
        refusal = _files_refusal(services, caller, server, body)
    return refusal


def submit_within(
    services: Services,
    caller: Caller,
    connection: Connection,
    server: Server,
    body: JobRequest,
    refusal: ManagedError | None,
) -> Job:
    """Store the job, or raise why not: what the queue knows goes before the `refusal` that was
    found. The transaction is to be rolled back then.
    """
    parameters = body.model_dump(mode="json", exclude_none=True, exclude={"kind", "run_key"})
    if isinstance(body, NewRestoreFiles) and body.from_server:
        parameters["from_server"] = _source(services, caller, server, body).server_id
    new = services.new_job(
        server.server_id, JobKind(body.kind), parameters, caller.name, run_key=body.run_key
    )
    try:
        job = services.queue.submit_within(connection, new, services.clock())
    except Paused as error:
        raise error if caller.principal.role.is_staff else _pause_for_customers() from error
    tenant = caller.principal.tenant
    if tenant and services.inventory.owner_within(connection, server.server_id) != tenant:
        raise NotFound(f"there is no server {server.name!r}", server=server.name)
    if refusal is not None:
        # Only now: that another job works on the server explains more than what its state does
        # not allow meanwhile.
        raise refusal
    return job


def _files_refusal(
    services: Services, caller: Caller, server: Server, body: NewRestoreFiles
) -> ManagedError | None:
    """InvalidInput is raised for paths that nobody can restore."""
    checked_paths(body.paths)
    source = _source(services, caller, server, body)
    records = services.catalogue.of_server(source.server_id)
    return source_refusal(source, server) or restore_refusal(
        source, records, body.snapshot_id, body.as_of, JobKind.RESTORE_FILES
    )


def _source(services: Services, caller: Caller, server: Server, body: NewRestoreFiles) -> Server:
    """The server whose backup is restored."""
    return server_of(services, caller, body.from_server) if body.from_server else server


def _pause_for_customers() -> Paused:
    """Without the reason, which is for staff and may name others."""
    return Paused("the provider has paused what is not urgent", hint="Ask again later.")
