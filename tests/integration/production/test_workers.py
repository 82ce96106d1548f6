"""PostgreSQL and Redis, real workers and a real clock: nothing is lost or done twice when workers
are replaced one after the other, or when the broker dies.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import dropwhile
from pathlib import Path

import pytest

from managed.domain.jobs import Job, JobStatus
from managed.wiring import Installation, utc_now
from tests.support.held_workers import KIND, STEPS, effects
from tests.support.jobs import JobBench
from tests.support.parts import SECONDS, Part, Parts
from tests.support.promtool import require_content
from tests.support.redis import RedisServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def submit(bench: JobBench, *names: str) -> list[Job]:
    """A job on a new server of each name; nobody is told: the clock finds it."""
    return [bench.submit(KIND, server_id=bench.add_server(name)) for name in names]


def statuses(installation: Installation, jobs: list[Job]) -> Counter[JobStatus]:
    return Counter(installation.queue.job(job.job_id).status for job in jobs)


def log_lines(part: Part) -> list[str]:
    """Without what Celery has to say, before logs are set up, to whoever runs it as root."""
    return list(
        dropwhile(lambda line: not line.startswith("{"), part.log.read_text().split("\n")[:-1])
    )


def begun(folder: Path, step: str) -> int:
    return [found for _, found in effects(folder)].count(step)


def test_replacing_workers_one_after_the_other_loses_no_job_and_does_none_twice(
    installed: Parts, tmp_path: Path
) -> None:
    installation = installed.installation
    bench = JobBench(installation.database, clock=utc_now)
    old = [installed.worker(), installed.worker()]
    installed.clock()
    jobs = submit(bench, *(str(number) for number in range(10, 22)))
    wait_until(lambda: begun(tmp_path, "held") == 4, timeout=SECONDS, what="both are at work")

    old[0].ask_to_stop()
    new = [installed.worker()]
    wait_until(lambda: begun(tmp_path, "held") == 6, timeout=SECONDS, what="the new one works")
    (tmp_path / "go").touch()
    assert old[0].wait_for_end() == 0, old[0].log.read_text()
    old[1].ask_to_stop()
    new.append(installed.worker())
    assert old[1].wait_for_end() == 0, old[1].log.read_text()

    done = Counter({JobStatus.SUCCEEDED: len(jobs)})
    wait_until(
        lambda: statuses(installation, jobs) == done, timeout=SECONDS, what="all jobs are done"
    )
    assert Counter(effects(tmp_path)) == Counter((j.job_id, s) for j in jobs for s in STEPS)
    assert all(worker.is_healthy() for worker in new)


def test_a_killed_broker_takes_no_job_with_it(
    installed: Parts, broker: RedisServer, tmp_path: Path
) -> None:
    installation = installed.installation
    bench = JobBench(installation.database, clock=utc_now)
    worker = installed.worker()
    clock = installed.clock()
    at_work = submit(bench, "1", "2")
    wait_until(lambda: begun(tmp_path, "held") == 2, timeout=SECONDS, what="two jobs are at work")

    broker.kill()
    waiting = submit(bench, "3", "4")
    (tmp_path / "go").touch()
    done = Counter({JobStatus.SUCCEEDED: 2})
    wait_until(
        lambda: statuses(installation, at_work) == done,
        timeout=SECONDS,
        what="what was at work goes on without a broker",
    )
    assert clock.is_healthy()
    assert statuses(installation, waiting) == Counter({JobStatus.QUEUED: 2})

    broker.start()
    wait_until(
        lambda: statuses(installation, waiting) == done,
        timeout=SECONDS,
        what="the others are done when it is back",
    )
    assert Counter(effects(tmp_path)) == Counter(
        (job.job_id, step) for job in at_work + waiting for step in STEPS
    )
    wait_until(worker.is_healthy, timeout=SECONDS, what="the worker is connected again")


def test_workers_tell_what_has_ended_and_name_job_server_and_step_in_their_lines(
    installed: Parts, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    worker, clock = installed.worker(), installed.clock()
    bench = JobBench(installed.installation.database, clock=utc_now)
    (job,) = submit(bench, "5")
    counted = 'managed_jobs_ended_total{error="",kind="check",status="succeeded"} 1.0'
    wait_until(lambda: counted in worker.metrics(), timeout=SECONDS, what="the job is counted")
    assert 'managed_job_seconds_count{kind="check",status="succeeded"} 1.0' in worker.metrics()
    assert "managed_clock_tick_timestamp_seconds" in clock.metrics()
    assert "managed_poller_round_timestamp_seconds" in clock.metrics()
    require_content("check", "metrics", given=worker.metrics())
    require_content("check", "metrics", given=clock.metrics())

    lines = [json.loads(line) for line in log_lines(worker)]
    steps = [line for line in lines if line["event"] == "step_done"]
    assert [line["step"] for line in steps] == list(STEPS)
    for line in steps:
        assert (line["job_id"], line["server_id"]) == (job.job_id, job.server_id)
        assert (line["kind"], line["level"]) == ("check", "info")
        assert line["timestamp"]
    assert all(json.loads(line)["event"] for line in log_lines(clock))
