"""Who gets a server next: one job holds it, at most one is in line. Everybody who decides it, or
ends a job, locks the server's row first: a job that makes way and one that comes to wait at the
same moment would each see the other too late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Engine, and_, bindparam, select, update

from managed.storage.database import reading, writing
from managed.storage.tables import jobs, servers

IN_LINE = and_(jobs.c.status == "queued", ~jobs.c.holds_server)

# Made once, as every job's end needs them: making them costs as much as running them.
_LOCKING: Final = (
    select(servers.c.status).where(servers.c.id == bindparam("of_server")).with_for_update()
)
_HANDING_OVER: Final = (
    update(jobs)
    .where(jobs.c.server_id == bindparam("of_server"), IN_LINE)
    .values(holds_server=True, sent_at=None)
    .returning(jobs.c.id)
)


def lock_server(connection: Connection, server_id: str) -> str | None:
    """The server's status, or None when there is none; its row stays ours until the commit.

    Always taken before a job's row, so that two transactions never wait for each other.
    """
    return connection.execute(_LOCKING, {"of_server": server_id}).scalar_one_or_none()


def hand_over(connection: Connection, server_id: str) -> str | None:
    """The job in line, if any, becomes the server's holder; returns its id. The server is locked
    and nobody holds it.
    """
    return connection.execute(_HANDING_OVER, {"of_server": server_id}).scalar_one_or_none()


def hand_over_free_servers(engine: Engine) -> Sequence[str]:
    """Give servers that nobody holds to the jobs in line for them; returns those jobs' ids.

    There are none as long as all is well, and then nothing is locked or written.
    """
    with reading(engine) as connection:
        held = select(jobs.c.server_id).where(jobs.c.holds_server)
        free = connection.execute(
            select(jobs.c.server_id).where(IN_LINE, jobs.c.server_id.not_in(held))
        )
        server_ids = [row.server_id for row in free]
    handed = [_hand_over_if_free(engine, server_id) for server_id in server_ids]
    return [job_id for job_id in handed if job_id is not None]


def _hand_over_if_free(engine: Engine, server_id: str) -> str | None:
    with writing(engine) as connection:
        lock_server(connection, server_id)
        query = select(jobs.c.id).where(jobs.c.server_id == server_id, jobs.c.holds_server)
        if connection.execute(query).first() is not None:
            return None
        return hand_over(connection, server_id)
