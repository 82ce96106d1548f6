"""The one task: take a job as far as it goes now. And what a worker process needs around it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
from functools import lru_cache
from typing import Any

import structlog
from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_ready,
    worker_shutting_down,
)

from managed.logs import configure_logs
from managed.settings import settings
from managed.wiring import Installation, open_installation
from managed.workflows.engine import Engine, RunEnd
from workers.app import app
from workers.heart import BEAT, REGISTRY, Heart
from workers.listener import tell
from workers.measures import JobMeasures, tell_worker
from workers.queue import TASK, send

log = structlog.get_logger()

_PR_SET_PDEATHSIG = 1
_stopping = multiprocessing.Event()
app.steps["consumer"].add(Heart)


@app.task(name=TASK)  # type: ignore[untyped-decorator]
def run_job(job_id: str) -> None:
    """Run the job until it waits, ends, or is another worker's."""
    with structlog.contextvars.bound_contextvars(job_id=job_id):
        end = _engine().run(job_id)
        log.info("job_let_go", reason=end)
        if end is RunEnd.RELEASED:
            send(_installation(), job_id)


@lru_cache(maxsize=1)
def _installation() -> Installation:
    return open_installation(settings())


@lru_cache(maxsize=1)
def _engine() -> Engine:
    installation = _installation()
    return installation.engine(
        owner=f"{socket.gethostname()}:{os.getpid()}",
        send=lambda job_id: send(installation, job_id),
        ended=tell_worker,
        stopping=_stopping.is_set,
    )


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _die_with_the_worker(**_: Any) -> None:
    """A pool process must not work on when its worker has been killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _give_jobs_back(**_: Any) -> None:
    _stopping.set()


@setup_logging.connect  # type: ignore[untyped-decorator]
def _configure_logs(**_: Any) -> None:
    configure_logs(settings())


@worker_ready.connect  # type: ignore[untyped-decorator]
def _say_ready(**_: Any) -> None:
    JobMeasures(REGISTRY).listen()
    tell(settings(), REGISTRY, [BEAT])
    (settings().runtime / "worker-ready").touch()
