"""Changing a server that is under management."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from managed.domain.errors import AlreadyExists, NotFound, ServerBusy
from managed.domain.servers import Server, ServerStatus
from managed.storage.handover import lock_server
from managed.storage.tables import jobs, servers


def change_server(connection: Connection, before: Server, changed: Server) -> None:
    """Inside the caller's transaction. ServerBusy while a job works on it, or another change came
    first; AlreadyExists when the name is taken.
    """
    status = lock_server(connection, before.server_id)
    if status is None or status == ServerStatus.DELETED:
        raise NotFound(f"there is no server {before.server_id}", server_id=before.server_id)
    require_free(connection, before.server_id)
    try:
        with connection.begin_nested():
            done = connection.execute(
                update(servers)
                .where(
                    servers.c.id == before.server_id,
                    servers.c.host_key == before.host_key,
                    servers.c.name == before.name,
                )
                .values(
                    name=changed.name,
                    address=changed.address,
                    ssh_port=changed.ssh_port,
                    host_key=changed.host_key,
                    spec=asdict(changed.spec) if changed.spec else None,
                )
            ).rowcount
    except IntegrityError as error:
        raise AlreadyExists(
            f"a server named {changed.name} exists", hint="Choose another name.", field="name"
        ) from error
    if done != 1:
        raise ServerBusy("the server was changed a moment ago", hint="Look at it and ask again.")


def require_free(connection: Connection, server_id: str) -> None:
    query = select(jobs.c.id, jobs.c.kind).where(jobs.c.server_id == server_id, jobs.c.holds_server)
    holder = connection.execute(query).one_or_none()
    if holder is not None:
        raise ServerBusy(
            f"a {holder.kind} job is working on this server",
            hint=f"Wait for job {holder.id} to end, or cancel it.",
            server_id=server_id,
            job_id=holder.id,
            job_kind=holder.kind,
        )
