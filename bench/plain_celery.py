"""The rival of `bench.dispatch`: tasks that do nothing, in Celery as people use it, with results
kept in Redis: `celery -A bench.plain_celery worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

from celery import Celery

from tests.support.waiting import wait_until

_BROKER: Final = "BENCH_BROKER"
_STARTED: Final = "celery@"
_SECONDS: Final = 120.0

app = Celery("plain", broker=os.environ.get(_BROKER, ""), backend=os.environ.get(_BROKER, ""))
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)


@app.task(name="nothing")  # type: ignore[untyped-decorator]
def nothing() -> None:
    """As little as our job does."""


def tasks_per_second(tasks: int, processes: int, broker: str) -> float:
    """Sent before the worker begins; from its first task's end to its last one's."""
    environment = {**os.environ, _BROKER: broker}
    app.conf.update(broker_url=broker, result_backend=broker)
    results = [nothing.apply_async() for _ in range(tasks)]
    command = (sys.executable, "-m", "celery", "-A", "bench.plain_celery", "worker")
    options = ("--concurrency", str(processes), "--loglevel", "error")
    with subprocess.Popen((*command, *options), env=environment) as worker:
        try:
            wait_until(lambda: results[0].ready(), timeout=_SECONDS, what="the first task ends")
            began = time.monotonic()
            for result in results:
                result.get(timeout=_SECONDS)
            return tasks / (time.monotonic() - began)
        finally:
            worker.terminate()
