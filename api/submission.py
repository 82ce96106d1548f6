"""Asking for a job on a server: the same refusals whoever asks, for one server or for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

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


@dataclass(frozen=True)
class Backup:
    """What a restore is to take: of which server, the snapshot or the newest as of a time, and of
    it these paths (none: the whole).
    """

    source: Server
    snapshot_id: str | None = None
    as_of: datetime | None = None
    paths: Sequence[str] = ()


@dataclass(frozen=True)
class Submission:
    """A job that is asked for, with all that was read for it. `refusal` is why the server cannot
    have it as it stands.
    """

    server: Server
    kind: JobKind
    parameters: dict[str, object]
    run_key: str | None
    refusal: ManagedError | None


def prepared(services: Services, caller: Caller, server: Server, body: JobRequest) -> Submission:
    """InvalidInput for what nobody can do, NotFound for a source that is not the caller's."""
    kind, backup = JobKind(body.kind), None
    parameters = body.model_dump(mode="json", exclude_none=True, exclude={"kind", "run_key"})
    if isinstance(body, NewRestore):
        backup = Backup(server, body.snapshot_id, body.as_of)
    if isinstance(body, NewRestoreFiles):
        source = server_of(services, caller, body.from_server) if body.from_server else server
        backup = Backup(source, body.snapshot_id, body.as_of, body.paths)
        if body.from_server:
            parameters["from_server"] = source.server_id
    refusal = job_refusal(services, server, kind, backup)
    return Submission(server, kind, parameters, body.run_key, refusal)


def job_refusal(
    services: Services, server: Server, kind: JobKind, backup: Backup | None = None
) -> ManagedError | None:
    """Why the server's plan, its state or its backups do not allow such a job; or None.
    InvalidInput is raised for paths that nobody can restore.
    """
    if backup is not None and backup.paths:
        checked_paths(backup.paths)
    session = services.sessions.current(server.server_id)
    refusal: ManagedError | None = plan_refusal(server, services.customers.plan_of(server), kind)
    refusal = refusal or submission_refusal(server, kind, session)
    if refusal is not None or backup is None:
        return refusal
    records = services.catalogue.of_server(backup.source.server_id)
    return source_refusal(backup.source, server) or restore_refusal(
        backup.source, records, backup.snapshot_id, backup.as_of, kind
    )


def submit_within(
    services: Services, caller: Caller, connection: Connection, asked: Submission
) -> Job:
    """Store the job, or raise why not: what the queue knows goes before the refusal that was
    found. The transaction is to be rolled back then.
    """
    server = asked.server
    new = services.new_job(
        server.server_id, asked.kind, asked.parameters, caller.name, run_key=asked.run_key
    )
    try:
        job = services.queue.submit_within(connection, new, services.clock())
    except Paused as error:
        raise error if caller.principal.role.is_staff else _pause_for_customers() from error
    tenant = caller.principal.tenant
    if tenant and services.inventory.owner_within(connection, server.server_id) != tenant:
        raise NotFound(f"there is no server {server.name!r}", server=server.name)
    if asked.refusal is not None:
        # Only now: that another job works on the server explains more than what its state does
        # not allow meanwhile.
        raise asked.refusal
    return job


def _pause_for_customers() -> Paused:
    """Without the reason, which is for staff and may name others."""
    return Paused("the provider has paused what is not urgent", hint="Ask again later.")
