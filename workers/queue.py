"""Telling the workers of a job. A message is only a hint: the database is the truth, and a job
whose message is lost is sent again by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import structlog
from kombu.exceptions import OperationalError

from managed.domain.errors import BrokerUnavailable
from managed.wiring import Installation
from workers.app import BROKER_SECONDS, app

log = structlog.get_logger()

TASK = "managed.run_job"

# While the broker is away not everybody waits for it anew: hundreds of jobs, each for two seconds,
# would keep the clock from all its other duties.
_LEFT_ALONE_SECONDS: Final = 5.0
_left_alone_until = 0.0


def send(installation: Installation, job_id: str) -> None:
    """Send the job's id, after the commit that made it runnable. A broker that is away is no
    error: the clock sends again. Takes two seconds at most.
    """
    send_all(installation, [job_id])


def send_all(installation: Installation, job_ids: Sequence[str]) -> None:
    """The same for many, with two transactions at most. They are marked first: a worker may have
    had a job, and given it back to be sent anew, before this ends.
    """
    global _left_alone_until
    if not job_ids or time.monotonic() < _left_alone_until:
        return
    installation.queue.mark_sent(job_ids, installation.clock())
    untold: list[str] = []
    with app.producer_or_acquire() as producer:
        for place, job_id in enumerate(job_ids):
            try:
                app.send_task(TASK, args=[job_id], retry=False, producer=producer)
                _left_alone_until = 0.0
            except (OperationalError, OSError) as error:
                _left_alone_until = time.monotonic() + _LEFT_ALONE_SECONDS
                log.warning("message_not_sent", job_id=job_id, error=type(error).__name__)
                untold += job_ids[place:]
                break
            except Exception:
                log.exception("message_defect", job_id=job_id)
                untold.append(job_id)
    installation.queue.mark_unsent(untold)


def require_broker() -> None:
    """BrokerUnavailable when a message could not be sent now. Asked over a connection of its own:
    one that is kept says nothing of a broker that has gone since.
    """
    try:
        with app.connection_for_write(connect_timeout=BROKER_SECONDS) as connection:
            connection.default_channel.close()
    except (OperationalError, OSError) as error:
        raise BrokerUnavailable(f"the broker does not answer: {type(error).__name__}") from error
