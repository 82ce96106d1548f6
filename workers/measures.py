"""What a worker counts: the jobs that it has brought to their end.

Jobs end in the pool's processes, Prometheus asks the worker's own. A process that is killed in the
midst of telling must not hold up the others, so there is no lock and no queue between them but a
pair of datagram sockets; what does not fit is dropped, and a job is not counted then.
"""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import asdict, dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from managed.domain.jobs import Job, JobKind, JobStatus
from managed.domain.windows import WINDOW_KINDS, opening_of

log = structlog.get_logger()

_LARGEST: Final = 4096
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_JOB_BUCKETS: Final = (
    *(1.0, 5.0, 15.0, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR),
)
_LATENESS_BUCKETS: Final = (
    10.0,
    _MINUTE,
    5 * _MINUTE,
    15 * _MINUTE,
    30 * _MINUTE,
    _HOUR,
    2 * _HOUR,
)

# Made before the pool's processes are, which inherit it.
_for_worker, _for_pool = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


@dataclass(frozen=True)
class EndedJob:
    """`seconds` from its first claim to its end. `error` is the code of what it failed with, else
    empty. `late` is how many seconds after the beginning of its window it began, None without one.
    """

    kind: str
    status: str
    seconds: float
    error: str = ""
    late: float | None = None


def ended_job(job: Job) -> EndedJob | None:
    """What is counted of a job; nothing of one that has not begun or not ended."""
    if job.started_at is None or job.finished_at is None:
        return None
    opening = opening_of(job)
    return EndedJob(
        kind=job.kind.value,
        status=job.status.value,
        seconds=(job.finished_at - job.started_at).total_seconds(),
        error=str(job.error["code"]) if job.error else "",
        late=(job.started_at - opening.starts_at).total_seconds() if opening else None,
    )


def tell_worker(job: Job) -> None:
    """In a process of the pool: have the job counted."""
    ended = ended_job(job)
    if ended is None:
        return
    try:
        _for_pool.send(json.dumps(asdict(ended)).encode(), socket.MSG_DONTWAIT)
    except OSError as error:
        log.debug("job_not_counted", error=type(error).__name__)


class JobMeasures:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter(
            "managed_jobs_ended_total",
            "Jobs that this worker brought to their end; `error` is the code of what they failed"
            " with.",
            ("kind", "status", "error"),
            registry=registry,
        )
        self._seconds = Histogram(
            "managed_job_seconds",
            "From a job's first claim to its end, waiting for servers included.",
            ("kind", "status"),
            buckets=_JOB_BUCKETS,
            registry=registry,
        )
        self._late = Histogram(
            "managed_window_lateness_seconds",
            "How long after the beginning of their window jobs began.",
            ("kind",),
            buckets=_LATENESS_BUCKETS,
            registry=registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Prometheus reckons with differences: of what begins as five it sees none of the five."""
        for kind in JobKind:
            for status in filter(lambda status: status.is_final, JobStatus):
                self._seconds.labels(kind.value, status.value)
        for kind in WINDOW_KINDS:
            self._late.labels(kind.value)

    def count(self, job: EndedJob) -> None:
        self._ended.labels(job.kind, job.status, job.error).inc()
        self._seconds.labels(job.kind, job.status).observe(job.seconds)
        if job.late is not None:
            self._late.labels(job.kind).observe(max(0.0, job.late))

    def listen(self) -> None:
        """In the worker's own process: count what the pool tells, for as long as it lives."""
        threading.Thread(target=self._listen, name="measures", daemon=True).start()

    def _listen(self) -> None:
        while True:
            self.count(EndedJob(**json.loads(_for_worker.recv(_LARGEST))))
