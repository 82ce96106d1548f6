"""Telling the workers of a job. A message is only a hint: the database is the truth, and a job
whose message is lost is sent again by the clock.
"""

from __future__ import annotations

import structlog
from kombu.exceptions import OperationalError

from managed.wiring import Installation
from workers.app import app

log = structlog.get_logger()

TASK = "managed.run_job"


def send(installation: Installation, job_id: str) -> None:
    """Send the job's id, after the commit that made it runnable. A broker that is away is no
    error: the clock sends again.
    """
    try:
        app.send_task(TASK, args=[job_id], retry=False)
    except (OperationalError, OSError) as error:
        log.warning("message_not_sent", job_id=job_id, error=type(error).__name__)
        return
    installation.queue.mark_sent([job_id], installation.clock())
