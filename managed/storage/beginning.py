"""What may begin: nothing whose time is over, and little while everything is paused."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, or_, select

from managed.domain.jobs import HELD_IN_A_PAUSE
from managed.storage.tables import jobs, pause


def may_begin(now: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """True for jobs that have begun, and for those that may; also for those that were called off,
    which a worker has to end, so that what waits for them gets the server.
    """
    held = jobs.c.kind.in_(sorted(kind.value for kind in HELD_IN_A_PAUSE))
    in_time = or_(jobs.c.start_by.is_(None), jobs.c.start_by > now)
    free = or_(~held, ~exists(select(pause.c.id)))
    called_off = jobs.c.cancel_requested != ""
    return or_(jobs.c.started_at.is_not(None), called_off, and_(in_time, free))
