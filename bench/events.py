"""Live output from a step to whoever follows it: `python -m bench.events`.

A job's step emits events as a playbook or restic does, one per line of output. One worker process
writes them into PostgreSQL, each with its number in the job's log; a client reads them from the API
as an event stream while they come. Beside it the same events through a Redis stream.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from datetime import datetime

import psycopg

from bench._report import machine, report
from bench._servers import add_servers
from bench.bench_worker import MANY_EVENTS, bench_job
from bench.redis_stream import events_per_second
from managed.wiring import open_installation
from tests.support.installation import LiveInstallation, Part, live_installation
from tests.support.waiting import wait_until

GOAL = 20_000
_SECONDS = 300.0
_EVENT = b"event: ansible\r\n"
_WROTE = "SELECT EXTRACT(EPOCH FROM finished_at - started_at) FROM job_steps WHERE job_id = %s"
_FIRST = "SELECT min(at) FROM events WHERE job_id = %s AND type = 'ansible'"
_STORED = "SELECT count(*) FROM events WHERE job_id = %s AND type = 'ansible'"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    given = parser.parse_args()
    with live_installation(
        (Part.BROKER, Part.API, Part.WORKER, Part.CLOCK),
        worker_app="bench.bench_worker",
        worker_processes=1,
    ) as live:
        written, seen = product_events_per_second(live, given.events)
        rival = events_per_second(live.settings.broker_url, given.events)
    report(
        "events",
        {
            "seen_per_second": round(seen),
            "committed_per_second": round(written),
            "events": given.events,
        }
        | machine(),
        {"name": "a Redis stream, nothing on disk", "seen_per_second": round(rival)},
        round(seen / rival, 3),
        f"at least {GOAL} events/s committed and seen",
        seen >= GOAL,
    )
    return 0


def product_events_per_second(live: LiveInstallation, events: int) -> tuple[float, float]:
    """Committed, and seen by the follower; both from the first event's making."""
    installation = open_installation(live.settings)
    (server_id,) = add_servers(installation, 1)
    new = bench_job(server_id, MANY_EVENTS, {"events": events})
    job_id = installation.queue.submit(new, installation.clock()).job_id
    installation.database.dispose()
    follower = Follower(live, job_id)
    follower.start()
    wait_until(lambda: not follower.is_alive(), timeout=_SECONDS, what="the last event is seen")
    with psycopg.connect(live.cluster.connection) as database:
        wrote, first, stored = (
            row[0]
            for query in (_WROTE, _FIRST, _STORED)
            if (row := database.execute(query, (job_id,)).fetchone())
        )
    if not stored == follower.seen == events:
        raise AssertionError(f"{events} made, {stored} stored, {follower.seen} seen")
    return events / float(wrote), events / (follower.ended_at - _seconds(first))


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


class Follower(threading.Thread):
    """Reads a job's stream to its end and counts the events of its step."""

    def __init__(self, live: LiveInstallation, job_id: str) -> None:
        super().__init__(name="follower", daemon=True)
        self._live = live
        self._path = f"/v1/jobs/{job_id}/events"
        self.seen = 0
        self.ended_at = 0.0

    def run(self) -> None:
        rest = b""
        with (
            self._live.client(timeout=_SECONDS) as client,
            client.stream("GET", self._path, headers={"Accept": "text/event-stream"}) as response,
        ):
            response.raise_for_status()
            for chunk in response.iter_raw():
                found = rest + chunk
                count = found.count(_EVENT)
                if count:
                    self.seen += count
                    self.ended_at = time.time()
                    found = found[found.rfind(_EVENT) + len(_EVENT) :]
                rest = found[-len(_EVENT) :]


if __name__ == "__main__":
    sys.exit(main())
