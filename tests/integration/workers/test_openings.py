"""Windows start what they are for, once, and only while they are open; what was missed is told.
What surveys have to do with it is tested in test_surveyed_openings.py.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from structlog.testing import capture_logs

from managed.domain.jobs import JobKind, JobStatus
from managed.domain.rescue import RescueSession
from managed.domain.servers import ServerStatus
from managed.domain.windows import WindowOwner
from managed.storage.copies.aftermath import pause_everything
from managed.storage.database import writing
from tests.support.jobs import JobBench
from tests.support.openings_stage import (
    CLOSES,
    CUSTOMER,
    NO_SURVEY,
    OPENS,
    PLAN,
    UNMANAGED,
    Stage,
)


@pytest.fixture
def stage(database: Database) -> Stage:
    return Stage(JobBench(database))


def test_a_window_starts_one_job_when_it_opens(stage: Stage) -> None:
    stage.window()
    assert stage.tick(OPENS - timedelta(seconds=1)) == []

    (job,) = stage.tick(OPENS)
    assert (job.kind, job.requested_by) == (JobKind.PATCH, "clock")
    assert job.run_key == "clock:window:2026-04-01T02:00:00Z"
    assert job.parameters == {"only_security": True}
    assert job.start_by == CLOSES
    assert stage.sent == [job.job_id]

    assert stage.tick(OPENS + timedelta(hours=1)) == [job]
    stage.start_clock()
    assert stage.tick(stage.now) == [job]
    assert stage.sent == [job.job_id], "also another clock starts it once"
    assert stage.machines.asked == [stage.bench.server_id], "and asks no more"


def test_every_opening_has_its_own_job(stage: Stage) -> None:
    stage.window()
    (first,) = stage.tick(OPENS)
    begun = stage.begin(first)
    assert begun is not None
    stage.bench.store.finish(begun, JobStatus.SUCCEEDED, stage.now)

    jobs = stage.tick(OPENS + timedelta(days=1))

    assert [job.run_key for job in jobs] == [
        "clock:window:2026-04-01T02:00:00Z",
        "clock:window:2026-04-02T02:00:00Z",
    ]
    assert stage.missed() == []


def test_the_nearest_window_counts(stage: Stage) -> None:
    stage.window()
    stage.window(WindowOwner.SERVER, stage.bench.server_id, rule="FREQ=DAILY;BYHOUR=5")

    assert stage.tick(OPENS) == []
    assert len(stage.tick(OPENS + timedelta(hours=3))) == 1


def test_a_window_whose_rule_cannot_be_followed_is_told_once_and_hinders_no_other(
    stage: Stage,
) -> None:
    doubled = "FREQ=DAILY;BYHOUR=2;BYHOUR=3"
    stage.window(rule=doubled)
    stage.window(WindowOwner.CUSTOMER, CUSTOMER.customer_id, JobKind.BACKUP)
    with capture_logs() as logs:
        (job,) = stage.tick(OPENS)
        stage.tick(OPENS + timedelta(minutes=1))
        assert job.kind is JobKind.BACKUP
        assert told_of(logs) == [doubled]
        stage.start_clock()
        stage.tick(OPENS + timedelta(minutes=2))
        assert told_of(logs) == [doubled] * 2, "another process tells it again"


def told_of(logs: list[Any]) -> list[str]:
    """The rules of which the clock says that it cannot follow them."""
    return [line["rule"] for line in logs if line["event"] == "window_cannot_be_followed"]


def test_expired_window_starts_nothing_and_is_recorded_as_missed(stage: Stage) -> None:
    stage.window()

    assert stage.tick(CLOSES) == []
    assert stage.tick(CLOSES + timedelta(minutes=1)) == []

    assert stage.missed() == [(JobKind.PATCH, OPENS, NO_SURVEY)]


def test_a_backup_that_nothing_is_known_to_have_hindered_is_missed_without_a_reason(
    stage: Stage,
) -> None:
    stage.window(kind=JobKind.BACKUP)
    stage.tick(CLOSES)
    assert stage.missed() == [(JobKind.BACKUP, OPENS, "nothing could be started while it was open")]


def test_a_busy_server_gets_its_job_when_it_is_free(stage: Stage) -> None:
    stage.window()
    busy = stage.bench.submit(JobKind.HARDEN)
    begun = stage.begin(busy)
    assert begun is not None
    assert stage.tick(OPENS) == [stage.bench.queue.find()[-1]]

    stage.bench.store.finish(begun, JobStatus.SUCCEEDED, stage.now)
    assert [job.kind for job in stage.tick(OPENS + timedelta(hours=1))] == [
        JobKind.HARDEN,
        JobKind.PATCH,
    ]


def test_a_server_that_was_busy_all_the_time_has_missed_its_window_and_it_is_said_why(
    stage: Stage,
) -> None:
    stage.window()
    stage.begin(stage.bench.submit(JobKind.HARDEN))
    stage.tick(OPENS)
    stage.tick(CLOSES)

    assert stage.missed() == [(JobKind.PATCH, OPENS, "a harden job is working on this server")]


def test_a_server_in_rescue_is_not_patched(stage: Stage) -> None:
    stage.window()
    stage.bench.inventory.set_status(stage.bench.server_id, ServerStatus.RESCUE, stage.now)
    job = stage.bench.submit(JobKind.RESCUE)
    begun = stage.begin(job)
    assert begun is not None
    stage.installation.sessions.open(
        RescueSession("s", stage.bench.server_id, job.job_id, "", ServerStatus.ACTIVE, stage.now)
    )
    stage.bench.store.finish(begun, JobStatus.SUCCEEDED, stage.now)
    stage.tick(OPENS)
    assert [job.kind for job in stage.tick(CLOSES)] == [JobKind.RESCUE]
    assert stage.missed() == [(JobKind.PATCH, OPENS, "one is in a rescue session")]


def test_a_job_that_no_worker_began_in_time_ends_and_is_missed(stage: Stage) -> None:
    stage.window()
    (job,) = stage.tick(OPENS)
    stage.bench.clock.now = CLOSES
    assert stage.begin(job) is None, "also before the clock has seen it"

    (ended,) = stage.tick(CLOSES)

    assert ended.status is JobStatus.CANCELLED
    assert not ended.holds_server
    assert stage.missed() == [(JobKind.PATCH, OPENS, "its window closed before it could begin")]
    assert stage.bench.submit(JobKind.BACKUP).holds_server


def test_a_job_that_began_in_time_goes_on_after_its_window(stage: Stage) -> None:
    stage.window()
    (job,) = stage.tick(OPENS)
    begun = stage.begin(job)
    assert begun is not None
    stage.bench.store.release(begun)

    (later,) = stage.tick(CLOSES + timedelta(minutes=1))

    assert later.status is JobStatus.QUEUED
    assert stage.begin(later) is not None
    assert stage.missed() == []


def test_a_pause_holds_back_all_that_is_not_urgent(stage: Stage) -> None:
    stage.window()
    waiting = stage.bench.submit(JobKind.BACKUP)
    stage.pause()
    assert stage.begin(waiting) is None
    assert stage.bench.queue.to_send(stage.now, timedelta(0)) == []

    urgent = stage.bench.submit(JobKind.RESCUE)
    assert stage.bench.queue.to_send(stage.now, timedelta(0)) == [waiting.job_id], "to be ended"
    called_off = stage.begin(waiting)
    assert called_off is not None
    stage.bench.store.finish(called_off, JobStatus.CANCELLED, stage.now)
    assert stage.begin(urgent) is not None


def test_a_pause_starts_no_window_and_the_rest_of_it_is_used_when_it_ends(stage: Stage) -> None:
    stage.window()
    stage.pause()
    assert stage.tick(OPENS) == []
    stage.end_pause()
    assert len(stage.tick(OPENS + timedelta(minutes=90))) == 1


def test_a_window_that_was_paused_away_is_missed(stage: Stage) -> None:
    stage.window()
    stage.pause()
    stage.tick(OPENS)
    stage.tick(CLOSES)
    assert stage.missed() == [(JobKind.PATCH, OPENS, "everything was paused")]


def test_of_windows_before_a_restore_of_the_control_plane_nothing_is_known(stage: Stage) -> None:
    """The copy is of before the opening; the restore was done after it had closed."""
    stage.window()
    restored_at = CLOSES + timedelta(hours=1)
    with writing(stage.bench.database) as connection:
        pause_everything(connection, OPENS - timedelta(hours=1), restored_at)
    stage.tick(restored_at)
    ((kind, opened, reason),) = stage.missed()
    assert (kind, opened) == (JobKind.PATCH, OPENS)
    assert reason.startswith("unknown: the control plane was restored")
    stage.tick(OPENS + timedelta(days=1))
    stage.tick(CLOSES + timedelta(days=1))
    assert stage.missed()[-1][2].startswith("everything was paused")


def test_unmanaged_servers_and_those_without_a_plan_have_no_windows(stage: Stage) -> None:
    stage.window()
    stage.window(WindowOwner.PLAN, UNMANAGED.plan_id, JobKind.BACKUP)
    stage.place(stage.bench.server_id, UNMANAGED)
    stage.bench.add_server("two")

    assert stage.tick(OPENS) == []
    assert stage.tick(CLOSES) == []
    assert stage.missed() == []


def test_a_server_that_came_later_has_missed_nothing(stage: Stage) -> None:
    stage.window()
    stage.bench.clock.now = OPENS + timedelta(minutes=30)
    stage.place(stage.bench.add_server("two"), PLAN)
    stage.tick(CLOSES)

    found = stage.installation.windows.missed(since=OPENS)
    assert [one.server_id for one in found] == [stage.bench.server_id]


def test_backup_and_patch_of_one_window_come_one_after_the_other(stage: Stage) -> None:
    stage.window()
    stage.window(kind=JobKind.BACKUP)
    (backup,) = stage.tick(OPENS)
    assert backup.kind is JobKind.BACKUP
    begun = stage.begin(backup)
    assert begun is not None
    stage.bench.store.finish(begun, JobStatus.SUCCEEDED, stage.now)
    assert [job.kind for job in stage.tick(OPENS + timedelta(minutes=5))] == [
        JobKind.BACKUP,
        JobKind.PATCH,
    ]


# -- surveys
