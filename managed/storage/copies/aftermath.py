"""What a restored control plane must not go on with as if nothing had happened since its copy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from managed.domain.audit import Deed
from managed.domain.errors import JobCancelled, ManagedError, UnknownSinceRestore
from managed.domain.events import NewEvent
from managed.domain.jobs import JobStatus
from managed.storage import audit, events
from managed.storage.leases import NO_STEP
from managed.storage.tables import (
    api_tokens,
    invitations,
    jobs,
    panel_sessions,
    pause,
    rescue_sessions,
    servers,
    users,
)
from managed.storage.windows import RESTORER, pause_within


@dataclass(frozen=True)
class EndedJob:
    """A job that was open in the copy. `had_begun`: it may have changed its server."""

    job_id: str
    server: str
    kind: str
    step: str
    had_begun: bool


def pause_everything(connection: Connection, taken_at: datetime, now: datetime) -> None:
    """Nothing starts by itself until somebody has looked. A pause that the copy holds is kept in
    the reason.
    """
    reason = f"restored from a copy of {taken_at:%F %T} UTC; look first, then end this pause"
    before = pause_within(connection)
    if before is not None:
        reason += f" (in the copy there was one by {before.by}: {before.reason})"
    connection.execute(delete(pause))
    connection.execute(insert(pause).values(id=1, reason=reason, by=RESTORER, since=now))


def forget_who_was_let_in(connection: Connection, now: datetime) -> None:
    """What was revoked, disabled or used up since the copy counts again in it: so nothing of it
    lets anybody in. The installation's own token does, and makes new ones.
    """
    connection.execute(delete(panel_sessions))
    connection.execute(delete(invitations))
    connection.execute(
        update(api_tokens).where(api_tokens.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    connection.execute(update(users).values(password_hash=None))


def enter_into_the_log(connection: Connection, copy: str, now: datetime) -> None:
    audit.record(connection, Deed(now, RESTORER, "restore_self", "", "", {"copy": copy}))


def end_open_jobs(
    connection: Connection, taken_at: datetime, now: datetime
) -> tuple[EndedJob, ...]:
    """End every job that was open in the copy. It may have ended since, and its server may have
    been used since: to go on with a restore or an install would destroy that.
    """
    is_open = jobs.c.status.in_([s.value for s in JobStatus if not s.is_final])
    query = (
        select(jobs.c.id, jobs.c.kind, jobs.c.started_at, jobs.c.started_step, servers.c.name)
        .join(servers, servers.c.id == jobs.c.server_id)
        .where(is_open)
        .order_by(jobs.c.created_at, jobs.c.id)
    )
    return tuple(_end(connection, row, taken_at, now) for row in connection.execute(query).all())


def servers_in_rescue(connection: Connection) -> tuple[str, ...]:
    """Names of servers that had a rescue session open in the copy."""
    query = (
        select(servers.c.name)
        .join(rescue_sessions, rescue_sessions.c.server_id == servers.c.id)
        .where(rescue_sessions.c.ended_at.is_(None))
        .order_by(servers.c.name)
    )
    return tuple(connection.scalars(query))


def _end(connection: Connection, row: Any, taken_at: datetime, now: datetime) -> EndedJob:
    had_begun = row.started_at is not None
    status = JobStatus.FAILED if had_begun else JobStatus.CANCELLED
    connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            **NO_STEP,
            status=status.value,
            holds_server=False,
            lease_owner="",
            lease_expires_at=None,
            finished_at=now,
            error=_error(row, had_begun, taken_at).as_json(),
        )
    )
    ended = [NewEvent(now, "job_ended", {"status": status.value})]
    events.append(connection, row.id, ended)
    return EndedJob(row.id, row.name, row.kind, row.started_step, had_begun)


def _error(row: Any, had_begun: bool, taken_at: datetime) -> ManagedError:
    copy = f"the control plane was restored from a copy of {taken_at:%F %T} UTC"
    if not had_begun:
        return JobCancelled(
            f"{copy}, and this job had not begun in it",
            hint="It may have been done since. Look at the server, and ask again if it is needed.",
        )
    return UnknownSinceRestore(
        f"{copy}, and this job was under way in it",
        hint="It may have ended since, or left its server half changed. Look at the server (a check"
        " job does), and ask again if it is needed.",
        step=row.started_step,
    )
