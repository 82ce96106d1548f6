"""Telling the workers of a job. A message is only a hint: the database is the truth, and a job
whose message is lost is sent again by the clock.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    send_all(installation, [job_id])


def send_all(installation: Installation, job_ids: Sequence[str]) -> None:
    """The same for many, with two transactions at most. They are marked first: a worker may have
    had a job, and given it back to be sent anew, before this ends.
    """
    queue = installation.queue
    queue.mark_sent(job_ids, installation.clock())
    untold: list[str] = []
    with app.producer_or_acquire() as producer:
        for place, job_id in enumerate(job_ids):
            try:
                app.send_task(TASK, args=[job_id], retry=False, producer=producer)
            except (OperationalError, OSError) as error:
                log.warning("message_not_sent", job_id=job_id, error=type(error).__name__)
                untold += job_ids[place:]
                break
            except Exception:
                log.exception("message_defect", job_id=job_id)
                untold.append(job_id)
    queue.mark_unsent(untold)
