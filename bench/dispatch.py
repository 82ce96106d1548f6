"""Jobs that do nothing, started and finished by one worker: `python -m bench.dispatch`.

Each is a real job of one step on PostgreSQL: sent by the clock over Redis, claimed with a lease,
its step and its events recorded, its server handed on. Beside it the same number of tasks that do
nothing in plain Celery with results in Redis: no truth in a database, no lease, no record.
"""

from __future__ import annotations

import argparse
import sys

import psycopg

from bench._report import machine, report
from bench._servers import add_servers
from bench.bench_worker import NOTHING, bench_job
from bench.plain_celery import tasks_per_second
from managed.storage.database import writing
from managed.wiring import open_installation
from tests.support.installation import LiveInstallation, Part, live_installation
from tests.support.waiting import wait_until

GOAL = 200
_SECONDS = 300.0
_ENDED = "SELECT count(*) FROM jobs WHERE status = 'succeeded'"
_TOOK = "SELECT EXTRACT(EPOCH FROM max(finished_at) - min(started_at)) FROM jobs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=4)
    given = parser.parse_args()
    with live_installation(
        (Part.BROKER, Part.WORKER, Part.CLOCK),
        worker_app="bench.bench_worker",
        worker_processes=given.processes,
    ) as live:
        product = jobs_per_second(live, given.jobs)
        rival = tasks_per_second(given.jobs, given.processes, live.settings.broker_url)
    report(
        "dispatch",
        {"jobs_per_second": round(product, 1), "jobs": given.jobs, "processes": given.processes}
        | machine(),
        {"name": "plain Celery, results in Redis", "tasks_per_second": round(rival, 1)},
        round(product / rival, 3),
        f"at least {GOAL} jobs/s",
        product >= GOAL,
    )
    return 0


def jobs_per_second(live: LiveInstallation, jobs: int) -> float:
    """From the first job's start to the last one's end, by the database's own times. Whoever
    submits must not be what is measured: all are there in one moment, as when a window opens.
    """
    installation = open_installation(live.settings)
    server_ids = add_servers(installation, jobs)
    with writing(installation.database) as connection:
        for server_id in server_ids:
            job = bench_job(server_id, NOTHING)
            installation.queue.submit_within(connection, job, installation.clock())
    with psycopg.connect(live.cluster.connection, autocommit=True) as database:

        def all_have_ended() -> bool:
            row = database.execute(_ENDED).fetchone()
            return row is not None and row[0] == jobs

        wait_until(all_have_ended, timeout=_SECONDS, what="all jobs have succeeded")
        row = database.execute(_TOOK).fetchone()
    installation.database.dispose()
    if row is None:
        raise LookupError("no job is on record")
    return jobs / float(row[0])


if __name__ == "__main__":
    sys.exit(main())
