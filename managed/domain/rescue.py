"""Rescue sessions: a temporary boot of the rescue image over the server's own disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from managed.domain.servers import Server, ServerStatus


@dataclass(frozen=True)
class RescueSession:
    """`job_id` is the job that opened it. `expires_at` is when the clock ends it (None: it ends
    with its job, and when that could not end it, as soon as the job is over). `ended_at` is None
    while it is open.
    """

    session_id: str
    server_id: str
    job_id: str
    host_key: str
    status_before: ServerStatus
    started_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None


def rescue_limitation(server: Server) -> str | None:
    """Why this server cannot be booted into the rescue image, or None."""
    if server.node_id is None or server.spec is None:
        return "it was enrolled and runs on no node of ours"
    return None
