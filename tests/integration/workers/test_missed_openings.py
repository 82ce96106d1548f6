"""What counts as missed is judged by what was true while the window was open, whatever people have
changed since, and however long the clock was dead.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event, func, select, update

from managed.domain.customers import Customer, PlanKind
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.notifications import Occasion, Target, TargetKind
from managed.domain.servers import ServerStatus
from managed.domain.windows import Opening, Window, WindowOwner
from managed.storage import windows as windows_module
from managed.storage.database import reading, writing
from managed.storage.tables import (
    notifications,
    past_management,
    past_placements,
    past_windows,
    servers,
)
from managed.storage.windows import MissedWindow, record_missed_within
from tests.support.jobs import JobBench
from tests.support.openings_stage import CLOSES, CUSTOMER, OPENS, PLAN, UNMANAGED, Stage

NOON = OPENS + timedelta(hours=10)
NOTHING = "nothing could be started while it was open"
TOO_LATE = "its window closed before it could begin"
BERT = Customer("c0000000-0000-4000-8000-000000000002", "Bert", "bert@example.org")


@pytest.fixture
def stage(database: Database) -> Stage:
    """The clock is dead until a test lets it tick."""
    stage = Stage(JobBench(database))
    with writing(database) as connection:
        stage.installation.customers.add(connection, BERT, stage.now)
    return stage


def missed_by(stage: Stage, server_id: str | None = None) -> list[tuple[datetime, str]]:
    found = stage.installation.windows.missed(
        since=datetime(2026, 1, 1, tzinfo=UTC), server_id=server_id or stage.bench.server_id
    )
    return [(one.opening.starts_at, one.reason) for one in reversed(found)]


def plan_window(stage: Stage) -> Window:
    return stage.window(kind=JobKind.BACKUP)


def customer_window(stage: Stage, customer: Customer = CUSTOMER, hour: int = 5) -> Window:
    rule = f"FREQ=DAILY;BYHOUR={hour}"
    return stage.window(WindowOwner.CUSTOMER, customer.customer_id, JobKind.BACKUP, rule)


def own_window(stage: Stage, hour: int = 5) -> Window:
    rule = f"FREQ=DAILY;BYHOUR={hour}"
    return stage.window(WindowOwner.SERVER, stage.bench.server_id, JobKind.BACKUP, rule)


def succeed(stage: Stage, at: datetime) -> None:
    """The one job that there is then ends well."""
    (job,) = stage.tick(at)
    begun = stage.begin(job)
    assert begun is not None
    stage.bench.store.finish(begun, JobStatus.SUCCEEDED, stage.now)


def at(stage: Stage, moment: datetime) -> None:
    stage.bench.clock.now = moment


# -- what nobody has missed


def test_a_server_that_was_moved_to_a_managed_plan_has_not_missed_the_night_before(
    stage: Stage,
) -> None:
    stage.place(stage.bench.server_id, UNMANAGED)
    plan_window(stage)
    stage.tick(OPENS + timedelta(minutes=5))
    stage.tick(CLOSES + timedelta(minutes=5))
    at(stage, NOON)
    stage.place(stage.bench.server_id, PLAN)
    stage.tick(NOON)
    stage.start_clock()
    stage.tick(NOON + timedelta(minutes=1))
    assert stage.missed() == []


def test_a_server_that_is_under_management_since_today_has_not_missed_the_night_before(
    stage: Stage,
) -> None:
    """It was put on record before, and its owner has delivered the key by now."""
    plan_window(stage)
    server_id = stage.put_on_record("new")
    at(stage, NOON)
    stage.bench.inventory.set_status(server_id, ServerStatus.ACTIVE, stage.now)
    stage.tick(NOON)
    assert missed_by(stage, server_id) == []
    assert missed_by(stage) == [(OPENS, NOTHING)], "as the old one has"
    stage.bench.clock.pass_time(days=1)
    stage.tick(stage.now)
    assert missed_by(stage, server_id) == [(OPENS + timedelta(days=1), NOTHING)]


def test_a_server_that_was_being_created_has_missed_nothing(stage: Stage) -> None:
    """It is in a rescue session while it gets its system."""
    plan_window(stage)
    server_id = stage.put_on_record("new")
    stage.bench.inventory.set_status(server_id, ServerStatus.RESCUE, stage.now)
    stage.tick(CLOSES)
    for status in (ServerStatus.NEW, ServerStatus.ACTIVE):
        stage.bench.inventory.set_status(server_id, status, NOON)
    stage.start_clock()
    stage.tick(NOON)
    assert missed_by(stage, server_id) == []


def test_a_server_that_a_worker_of_an_older_version_has_activated_misses_its_windows(
    stage: Stage,
) -> None:
    plan_window(stage)
    with writing(stage.bench.database) as connection:
        connection.execute(update(servers).values(placed_since=None))
    stage.tick(CLOSES)
    assert missed_by(stage) == [(OPENS, NOTHING)]
    at(stage, NOON)
    stage.place(stage.bench.server_id, UNMANAGED)
    stage.place(stage.bench.server_id, PLAN)
    stage.start_clock()
    stage.tick(CLOSES + timedelta(days=1))
    assert len(missed_by(stage)) == 2


def test_a_server_that_was_moved_and_then_deleted_has_missed_nothing(stage: Stage) -> None:
    plan_window(stage)
    at(stage, NOON)
    stage.place(stage.bench.server_id, UNMANAGED)
    stage.bench.inventory.set_status(stage.bench.server_id, ServerStatus.DELETED, stage.now)
    stage.tick(NOON + timedelta(minutes=1))
    assert stage.missed() == []


def test_servers_of_a_plan_that_became_managed_have_not_missed_the_night_before(
    stage: Stage,
) -> None:
    plan_window(stage)
    stage.change_plan(PLAN, PlanKind.UNMANAGED)
    at(stage, NOON)
    stage.change_plan(PLAN, PlanKind.MANAGED)
    stage.tick(NOON)
    assert stage.missed() == []


@pytest.mark.parametrize("nearer", [own_window, customer_window])
def test_a_nearer_window_that_did_its_work_and_was_removed_counts_for_the_night_before(
    stage: Stage, nearer: Callable[[Stage], Window]
) -> None:
    plan_window(stage)
    window = nearer(stage)
    succeed(stage, OPENS + timedelta(hours=3))
    at(stage, NOON)
    stage.remove_window(window)
    stage.tick(NOON)
    assert stage.missed() == []
    stage.bench.clock.pass_time(days=1)
    stage.tick(stage.now)
    assert missed_by(stage) == [(OPENS + timedelta(days=1), NOTHING)], "the plan's counts now"


def test_a_server_that_was_given_to_somebody_has_not_missed_what_was_theirs_before(
    stage: Stage,
) -> None:
    plan_window(stage)
    customer_window(stage, BERT)
    succeed(stage, OPENS)
    at(stage, NOON)
    stage.place(stage.bench.server_id, PLAN, BERT)
    stage.tick(NOON)
    assert stage.missed() == []


def test_an_opening_that_people_have_cut_short_was_not_missed(stage: Stage) -> None:
    window = plan_window(stage)
    at(stage, OPENS + timedelta(hours=1))
    stage.change_window(window, rule="FREQ=DAILY;BYHOUR=6")
    stage.tick(OPENS + timedelta(hours=3))
    assert stage.missed() == []
    stage.tick(OPENS + timedelta(hours=6))
    assert missed_by(stage) == [(OPENS + timedelta(hours=4), NOTHING)]


def test_a_job_that_an_opening_had_started_before_it_was_cut_short_is_missed_if_none_begins_it(
    stage: Stage,
) -> None:
    """What a window has started goes on: its job may begin until the window would have closed."""
    window = plan_window(stage)
    stage.tick(OPENS + timedelta(minutes=5))
    at(stage, OPENS + timedelta(minutes=30))
    stage.remove_window(window)
    assert [job.status for job in stage.tick(OPENS + timedelta(hours=1))] == [JobStatus.QUEUED]
    assert [job.status for job in stage.tick(CLOSES)] == [JobStatus.CANCELLED]
    assert missed_by(stage) == [(OPENS, TOO_LATE)]


# -- what is not lost


def remove(stage: Stage, window: Window) -> None:
    stage.remove_window(window)


def change(stage: Stage, window: Window) -> None:
    stage.change_window(window, minutes=60)


def change_back_and_forth(stage: Stage, window: Window) -> None:
    for minutes in (60, 120):
        stage.change_window(window, minutes=minutes)
        stage.bench.clock.pass_time(minutes=1)


def move_away(stage: Stage, _: Window) -> None:
    stage.place(stage.bench.server_id, UNMANAGED)


def give_away(stage: Stage, _: Window) -> None:
    stage.place(stage.bench.server_id, PLAN, BERT)


def end_management(stage: Stage, _: Window) -> None:
    stage.change_plan(PLAN, PlanKind.UNMANAGED)


def end_and_begin_management(stage: Stage, _: Window) -> None:
    for kind in (PlanKind.UNMANAGED, PlanKind.MANAGED):
        stage.change_plan(PLAN, kind)
        stage.bench.clock.pass_time(minutes=1)


def add_a_nearer_one(stage: Stage, _: Window) -> None:
    own_window(stage, 2)


def break_and_mend(stage: Stage, _: Window) -> None:
    for status in (ServerStatus.RESCUE, ServerStatus.BROKEN, ServerStatus.ACTIVE):
        stage.bench.inventory.set_status(stage.bench.server_id, status, stage.now)


CHANGES = [
    remove,
    change,
    change_back_and_forth,
    move_away,
    give_away,
    end_management,
    end_and_begin_management,
    add_a_nearer_one,
    break_and_mend,
]


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("changed_after", [timedelta(seconds=20), timedelta(hours=3)])
def test_what_was_missed_is_recorded_once_whatever_people_have_changed_before_the_clock_looked(
    stage: Stage, changed: Callable[[Stage, Window], None], changed_after: timedelta
) -> None:
    window = plan_window(stage)
    at(stage, CLOSES + changed_after)
    changed(stage, window)
    for _ in range(2):
        stage.start_clock()
        stage.tick(CLOSES + timedelta(hours=4))
    assert missed_by(stage) == [(OPENS, NOTHING)]


@pytest.mark.parametrize("changed", CHANGES)
def test_what_was_started_was_not_missed_whatever_people_have_changed_since(
    stage: Stage, changed: Callable[[Stage, Window], None]
) -> None:
    window = plan_window(stage)
    succeed(stage, OPENS)
    at(stage, CLOSES + timedelta(seconds=20))
    changed(stage, window)
    stage.tick(CLOSES + timedelta(hours=4))
    assert stage.missed() == []


def test_the_nearer_window_is_the_one_that_was_missed_also_when_it_is_gone(stage: Stage) -> None:
    plan_window(stage)
    window = own_window(stage)
    at(stage, NOON)
    stage.remove_window(window)
    stage.tick(NOON)
    assert missed_by(stage) == [(OPENS + timedelta(hours=3), NOTHING)]


def test_a_server_that_is_placed_where_it_is_has_missed_its_window_all_the_same(
    stage: Stage,
) -> None:
    plan_window(stage)
    at(stage, OPENS + timedelta(hours=1))
    stage.place(stage.bench.server_id, PLAN)
    at(stage, OPENS + timedelta(minutes=90))
    stage.change_plan(PLAN, PLAN.kind)
    stage.tick(CLOSES)
    assert missed_by(stage) == [(OPENS, NOTHING)]


def test_what_hindered_a_server_is_said_though_it_was_moved_before_the_clock_recorded_it(
    stage: Stage,
) -> None:
    plan_window(stage)
    stage.begin(stage.bench.submit(JobKind.HARDEN))
    stage.tick(OPENS)
    at(stage, CLOSES + timedelta(seconds=20))
    stage.place(stage.bench.server_id, UNMANAGED)
    stage.tick(CLOSES + timedelta(seconds=40))
    assert missed_by(stage) == [(OPENS, "a harden job is working on this server")]


def test_how_it_was_is_forgotten_when_nothing_is_judged_by_it_any_more(stage: Stage) -> None:
    window = plan_window(stage)
    at(stage, NOON)
    stage.remove_window(window)
    move_away(stage, window)
    end_management(stage, window)
    past = (past_windows, past_placements, past_management)
    stage.openings.forget_past(NOON + timedelta(days=3))
    assert [rows(stage, table) for table in past] == [1, 1, 1]
    stage.openings.forget_past(NOON + timedelta(days=7))
    assert [rows(stage, table) for table in past] == [0, 0, 0]


def rows(stage: Stage, table: Any) -> int:
    with reading(stage.bench.database) as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


# -- a clock that dies


def listen(stage: Stage) -> None:
    """Somebody is to be told of every missed window."""
    occasions = frozenset({Occasion.WINDOW_MISSED})
    target = Target(
        str(uuid.uuid4()), TargetKind.EMAIL, "ops@example.org", occasions, None, stage.now
    )
    with writing(stage.bench.database) as connection:
        stage.installation.targets.add(connection, target)


class Killed(Exception):
    pass


@contextmanager
def killed_before_statement(database: Database, number: int) -> Iterator[None]:
    """Whoever is at work dies before that statement, and nothing of its transaction stays."""
    made = 0

    def note(*_: Any) -> None:
        nonlocal made
        made += 1
        if made == number:
            raise Killed

    event.listen(database, "before_cursor_execute", note)
    try:
        with suppress(Killed):
            yield
    finally:
        event.remove(database, "before_cursor_execute", note)


def three_servers(stage: Stage) -> list[str]:
    others = [stage.bench.add_server(name) for name in ("2", "3")]
    for server_id in others:
        stage.place(server_id, PLAN)
    return [stage.bench.server_id, *others]


def test_a_job_that_no_worker_began_is_missed_though_the_clock_died_after_it_had_ended_it(
    stage: Stage,
) -> None:
    stage.window()
    stage.tick(OPENS)
    stage.installation.queue.end_too_late(CLOSES)
    stage.start_clock()
    stage.tick(CLOSES + timedelta(minutes=5))
    assert missed_by(stage) == [(OPENS, TOO_LATE)]


def test_wherever_the_clock_dies_a_job_that_it_ended_too_late_is_missed_and_told_once(
    stage: Stage,
) -> None:
    listen(stage)
    plan_window(stage)
    every = three_servers(stage)
    assert len(stage.tick(OPENS)) == 3

    for number in count(1):
        with killed_before_statement(stage.bench.database, number):
            stage.installation.queue.end_too_late(CLOSES)
        assert len(stage.missed()) == rows(stage, notifications) == ended(stage)
        if ended(stage) == 3:
            break
    stage.start_clock()
    stage.tick(CLOSES + timedelta(minutes=5))

    assert number > 10, "it died at many places"
    assert [missed_by(stage, one) for one in every] == [[(OPENS, TOO_LATE)]] * 3
    assert rows(stage, notifications) == 3


def ended(stage: Stage) -> int:
    return len(stage.bench.queue.find(status=JobStatus.CANCELLED))


def test_wherever_the_clock_dies_what_has_started_nothing_is_missed_and_told_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows_module, "_RECORDED_AT_ONCE", 1)
    listen(stage)
    plan_window(stage)
    three_servers(stage)
    at(stage, CLOSES)
    for number in range(1, 12):
        stage.start_clock()
        with killed_before_statement(stage.bench.database, number):
            stage.openings.record_missed(CLOSES)
        assert len(stage.missed()) == rows(stage, notifications)
    stage.start_clock()
    stage.tick(CLOSES + timedelta(minutes=5))
    assert len(stage.missed()) == rows(stage, notifications) == 3


def test_what_a_clock_could_not_record_it_records_later_with_the_reason(stage: Stage) -> None:
    plan_window(stage)
    stage.begin(stage.bench.submit(JobKind.HARDEN))
    stage.tick(OPENS)
    at(stage, CLOSES)
    with killed_before_statement(stage.bench.database, 4):
        stage.openings.record_missed(CLOSES)
    assert stage.missed() == []
    stage.tick(CLOSES + timedelta(minutes=1))
    assert missed_by(stage) == [(OPENS, "a harden job is working on this server")]


def test_what_two_clocks_record_at_once_is_told_once(stage: Stage) -> None:
    listen(stage)
    opening = Opening(OPENS, CLOSES)
    missed = [MissedWindow(stage.bench.server_id, JobKind.PATCH, opening, "it was busy", CLOSES)]
    asks = threading.Event()

    def note(*_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            asks.set()

    with ThreadPoolExecutor() as other_clock:
        with writing(stage.bench.database) as connection:
            assert record_missed_within(connection, missed) == missed
            event.listen(stage.bench.database, "before_cursor_execute", note)
            other = other_clock.submit(stage.installation.windows.record_missed, missed)
            assert asks.wait(20), "the other one writes before this one has committed"
        assert other.result(20) == []
    assert rows(stage, notifications) == 1


def test_servers_are_not_looked_through_while_no_window_has_closed(stage: Stage) -> None:
    plan_window(stage)
    three_servers(stage)
    stage.tick(CLOSES)
    made: list[str] = []
    event.listen(
        stage.bench.database, "before_cursor_execute", lambda *given: made.append(given[2])
    )
    stage.openings.record_missed(CLOSES + timedelta(minutes=1))
    assert not any("FROM servers" in statement for statement in made), made
