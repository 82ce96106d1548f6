"""A patch window asks its servers before it starts anything. Servers exist in memory only; what
real ones answer to a survey is tested in test_surveys.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import SecretUnreadable
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.rescue import RescueSession
from managed.domain.servers import ServerStatus
from managed.domain.surveys import Survey, SurveyOutcome
from managed.drivers.fakes.shell import FakeServer
from managed.drivers.ssh.keys import new_key_pair
from managed.storage.database import DatabaseUnavailable
from tests.support.jobs import JobBench
from tests.support.openings_stage import (
    CLOSES,
    NO_SURVEY,
    OPENS,
    PLAN,
    Stage,
)
from tests.support.waiting import wait_until
from workers import openings as openings_module
from workers import surveys as surveys_module
from workers import time_scales as time_scales_module

Spoil = Callable[[Stage, FakeServer], object]


@pytest.fixture
def stage(database: Database) -> Stage:
    return Stage(JobBench(database))


def test_a_server_with_nothing_to_do_gets_no_job_and_has_missed_nothing(stage: Stage) -> None:
    stage.window()
    stage.nothing_to_do()

    assert stage.tick(OPENS) == []
    assert stage.tick(OPENS + timedelta(hours=1)) == []
    assert stage.tick(CLOSES) == []

    assert stage.missed() == []
    assert stage.machines.asked == [stage.bench.server_id], "once"
    found = stage.surveyed()[stage.bench.server_id]
    assert found == (SurveyOutcome.NOTHING_TO_DO, "everything is up to date")


def test_each_opening_asks_anew(stage: Stage) -> None:
    stage.window()
    stage.nothing_to_do()
    assert stage.tick(OPENS) == []
    stage.machines.documents.clear()
    assert len(stage.tick(OPENS + timedelta(days=1))) == 1


def test_the_survey_asks_for_what_the_plan_covers(stage: Stage) -> None:
    """An answer for all updates would be none for a plan that has those for security alone."""
    stage.window()
    stage.machines.documents[stage.bench.server_id] = {"pending": [], "only_security": False}
    assert len(stage.tick(OPENS)) == 1
    assert stage.surveyed()[stage.bench.server_id][0] is SurveyOutcome.UNKNOWN


def test_what_was_found_is_stored_before_the_job(stage: Stage) -> None:
    stage.window()
    (job,) = stage.tick(OPENS)
    outcome, said = stage.surveyed()[stage.bench.server_id]
    assert (outcome, said) == (SurveyOutcome.WORK, "1 update, 0 of them for security")
    last = stage.installation.surveys.last(stage.bench.server_id, JobKind.PATCH)
    assert last is not None
    assert last.opening.run_key == job.run_key
    assert last.finding.found["updates"] == 1


def ends_with(status: int, output: str = "", errors: str = "") -> Spoil:
    """The survey's program ends like this."""
    ended = CommandResult(status, output, errors)
    return lambda _, machine: machine.commands.update(python3=lambda *_: ended)


def found_there(**changes: Any) -> Spoil:
    return lambda stage, _: stage.machines.documents.update({stage.bench.server_id: changes})


def answers_for_another(stage: Stage, machine: FakeServer) -> None:
    """What answers at the address is not the server that is on record."""
    pinned = stage.machines.endpoint(stage.bench.server_id)
    vars(stage.installation)["world"].endpoint = lambda _: pinned
    machine.host_key = new_key_pair().public_key


def is_in_rescue(stage: Stage, _: FakeServer) -> None:
    """A session that began after the clock looked: where SSH answers is the rescue image."""
    stage.machines.host_keys[stage.bench.server_id] = new_key_pair().public_key


def has_no_credentials(stage: Stage, _: FakeServer) -> None:
    def refuse(_: str) -> Endpoint:
        raise SecretUnreadable("the secret of 00000000 cannot be opened with our master key")

    vars(stage.installation)["world"].endpoint = refuse


def meets_a_defect(stage: Stage, _: FakeServer) -> None:
    vars(stage.installation)["world"].endpoint = lambda _: None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _, machine: setattr(machine, "is_up", False), "connection refused"),
        (lambda _, machine: setattr(machine, "hangs", True), "time is up"),
        (answers_for_another, "another SSH host key"),
        (lambda _, machine: machine.commands.pop("python3"), "status 127"),
        (ends_with(1, errors="Traceback"), "status 1: Traceback"),
        (ends_with(0, "hello\n"), "no JSON document"),
        (ends_with(0), "no JSON document"),
        (ends_with(0, "[]"), "holds no object"),
        (ends_with(0, "x" * 2**21), "larger than"),
        (found_there(pending=[], error={"detail": "the lock was not free"}), "lock was not free"),
        (found_there(pending=None), "not whole: pending"),
        (has_no_credentials, "the server could not be asked"),
        (meets_a_defect, "the server could not be asked"),
        (is_in_rescue, "it is in a rescue session"),
    ],
)
def test_whatever_is_not_known_starts_the_job(stage: Stage, spoil: Spoil, said: str) -> None:
    stage.window()
    spoil(stage, stage.machines.machine(stage.bench.server_id))

    (job,) = stage.tick(OPENS)

    assert job.kind is JobKind.PATCH
    outcome, why = stage.surveyed()[stage.bench.server_id]
    assert outcome is SurveyOutcome.UNKNOWN
    assert said in why
    stage.tick(OPENS + timedelta(hours=1))
    assert len(stage.machines.asked) <= 1, "once is enough"


def test_a_slow_server_delays_no_other(stage: Stage) -> None:
    stage.window()
    slow, quick = stage.bench.server_id, stage.bench.add_server("2")
    stage.place(quick, PLAN)
    stage.machines.slow[slow] = threading.Event()
    stage.do_duties(OPENS)

    def quick_has_its_job() -> bool:
        return [job.server_id for job in stage.do_duties(OPENS)] == [quick]

    wait_until(quick_has_its_job, timeout=30, what="the other one has its job")
    stage.machines.slow[slow].set()
    assert {job.server_id for job in stage.tick(OPENS)} == {slow, quick}
    assert sorted(stage.machines.asked) == sorted([slow, quick]), "each once"


def test_so_many_servers_are_asked_at_once_and_the_others_after_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys_module, "_AT_ONCE", 2)
    stage.window()
    others = [stage.bench.add_server(str(number)) for number in range(2, 6)]
    for server_id in others:
        stage.place(server_id, PLAN)
    gate = threading.Event()
    every = [stage.bench.server_id, *others]
    stage.machines.slow = dict.fromkeys(every, gate)
    for _ in range(3):
        stage.do_duties(OPENS)
    wait_until(lambda: len(stage.machines.asked) == 2, timeout=30, what="two are asked")
    gate.set()

    def all_have_jobs() -> bool:
        return {job.server_id for job in stage.do_duties(OPENS)} == set(every)

    wait_until(all_have_jobs, timeout=30, what="every server has its job")
    assert sorted(stage.machines.asked) == sorted(every)


def test_a_window_that_closes_before_the_survey_has_ended_is_missed_and_it_is_said_why(
    stage: Stage,
) -> None:
    stage.window()
    stage.nothing_to_do()
    stage.machines.slow[stage.bench.server_id] = threading.Event()
    assert stage.do_duties(OPENS) == []
    assert stage.do_duties(CLOSES) == []
    missed = [(JobKind.PATCH, OPENS, NO_SURVEY)]
    assert stage.missed() == missed

    stage.machines.slow[stage.bench.server_id].set()
    assert stage.tick(CLOSES + timedelta(minutes=1)) == []

    assert stage.missed() == missed
    assert stage.surveyed() == {}, "what comes too late is no answer"


def test_what_was_surveyed_and_not_started_was_not_missed_for_want_of_a_survey(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There were others before it."""
    monkeypatch.setattr(openings_module, "_STARTS_AT_ONCE", 0)
    stage.window()
    stage.tick(OPENS)
    assert stage.surveyed()[stage.bench.server_id][0] is SurveyOutcome.WORK
    stage.tick(CLOSES)
    assert stage.missed() == [(JobKind.PATCH, OPENS, "nothing could be started while it was open")]


def test_what_hindered_a_server_is_no_reason_any_more_when_it_is_over(stage: Stage) -> None:
    stage.window()
    begun = stage.begin(stage.bench.submit(JobKind.HARDEN))
    assert begun is not None
    stage.tick(OPENS)
    stage.bench.store.finish(begun, JobStatus.SUCCEEDED, stage.now)
    stage.machines.slow[stage.bench.server_id] = threading.Event()
    stage.do_duties(OPENS + timedelta(minutes=1))
    stage.do_duties(CLOSES)
    stage.machines.slow[stage.bench.server_id].set()
    assert stage.missed() == [(JobKind.PATCH, OPENS, NO_SURVEY)]


def is_paused(stage: Stage, _: str) -> None:
    if stage.installation.windows.pause() is None:
        stage.pause()


def is_busy(stage: Stage, server_id: str) -> None:
    stage.bench.submit(JobKind.HARDEN, server_id=server_id)


def has_a_session(stage: Stage, server_id: str) -> None:
    job = stage.bench.submit(JobKind.RESCUE, server_id=server_id)
    begun = stage.begin(job)
    assert begun is not None
    stage.installation.sessions.open(
        RescueSession(server_id, server_id, job.job_id, "", ServerStatus.ACTIVE, stage.now)
    )
    stage.bench.store.finish(begun, JobStatus.SUCCEEDED, stage.now)


@pytest.mark.parametrize("kind", [JobKind.PATCH, JobKind.BACKUP])
@pytest.mark.parametrize("hinder", [is_paused, is_busy, has_a_session])
def test_a_tick_asks_the_database_no_more_of_many_servers_that_are_hindered(
    stage: Stage, kind: JobKind, hinder: Callable[[Stage, str], None]
) -> None:
    """Each tick would look all of them up again, for as long as the pause lasts, say."""
    stage.window(kind=kind)
    hinder(stage, stage.bench.server_id)
    few = statements(stage)
    for number in range(2, 12):
        server_id = stage.bench.add_server(str(number))
        stage.place(server_id, PLAN)
        hinder(stage, server_id)

    assert statements(stage) == few
    assert stage.machines.asked == []
    assert [job.kind for job in stage.bench.queue.find(kind=kind)] == []


def statements(stage: Stage) -> int:
    """How many the clock makes to start what it can."""
    made: list[str] = []

    def note(*given: Any) -> None:
        made.append(given[2])

    event.listen(stage.bench.database, "before_cursor_execute", note)
    stage.openings.start(OPENS)
    event.remove(stage.bench.database, "before_cursor_execute", note)
    return len(made)


def test_a_hung_node_delays_no_server_of_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_scales_module, "_WAIT_SECONDS", 600.0)
    stage.window()
    stage.machines.nodes[stage.bench.server_id] = "good"
    stage.machines.hung_nodes = {str(number): threading.Event() for number in range(20)}
    for node_id in stage.machines.hung_nodes:
        server_id = stage.bench.add_server(f"9{node_id}")
        stage.place(server_id, PLAN)
        stage.machines.nodes[server_id] = node_id
    stage.do_duties(OPENS)

    def good_has_its_job() -> bool:
        return [job.server_id for job in stage.do_duties(OPENS)] == [stage.bench.server_id]

    wait_until(good_has_its_job, timeout=30, what="the one on the good node has its job")
    assert list(stage.surveyed()) == [stage.bench.server_id], "the others wait for their nodes"
    for answering in stage.machines.hung_nodes.values():
        answering.set()
    assert len(stage.tick(OPENS)) == 21
    assert {outcome for outcome, _ in stage.surveyed().values()} == {SurveyOutcome.WORK}


def test_servers_of_a_node_that_never_answers_are_surveyed_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_scales_module, "_WAIT_SECONDS", 0.2)
    stage.window()
    stage.machines.hung_nodes["hung"] = threading.Event()
    others = [stage.bench.add_server(str(number)) for number in range(2, 6)]
    for server_id in others:
        stage.place(server_id, PLAN)
    stage.machines.nodes = dict.fromkeys([stage.bench.server_id, *others], "hung")

    assert len(stage.tick(OPENS)) == 5

    assert {outcome for outcome, _ in stage.surveyed().values()} == {SurveyOutcome.WORK}
    assert stage.machines.asked_nodes == ["hung"], "once for all of them"
    stage.machines.hung_nodes["hung"].set()


def test_a_clock_that_ended_before_the_answer_was_stored_asks_again(stage: Stage) -> None:
    stage.window()
    stage.machines.slow[stage.bench.server_id] = threading.Event()
    stage.do_duties(OPENS)
    wait_until(lambda: stage.machines.asked, timeout=30, what="the server is asked")
    stage.surveys.give_up()
    stage.machines.slow.pop(stage.bench.server_id).set()
    assert stage.surveyed() == {}

    stage.start_clock()

    assert len(stage.tick(OPENS + timedelta(minutes=1))) == 1
    assert stage.machines.asked == [stage.bench.server_id] * 2


def test_a_clock_that_ended_between_answer_and_job_starts_the_job(stage: Stage) -> None:
    stage.window()
    stage.do_duties(OPENS)
    wait_until(lambda: stage.all_answered(OPENS), timeout=30, what="the answer is stored")
    assert stage.surveyed()[stage.bench.server_id][0] is SurveyOutcome.WORK
    assert stage.bench.queue.find() == []

    stage.start_clock()

    assert len(stage.do_duties(OPENS)) == 1
    assert stage.machines.asked == [stage.bench.server_id], "it is known already"


def test_what_the_database_does_not_take_is_stored_later(stage: Stage) -> None:
    stage.window()
    records = stage.installation.surveys
    stage.do_duties(OPENS)
    refused: list[Sequence[Survey]] = []

    def refuse_rows(found: Sequence[Survey]) -> None:
        if found:
            refused.append(found)
            raise DatabaseUnavailable("no connection")

    def is_refused() -> bool:
        with suppress(DatabaseUnavailable):
            stage.surveys.store(OPENS)
        return len(refused) == 2

    vars(stage.installation)["surveys"] = SimpleNamespace(record=refuse_rows)
    wait_until(is_refused, timeout=30, what="the answer has come and was not taken, twice")
    vars(stage.installation)["surveys"] = records

    assert len(stage.do_duties(OPENS)) == 1
    assert stage.machines.asked == [stage.bench.server_id]


def test_two_clocks_ask_twice_and_start_one_job(stage: Stage) -> None:
    stage.window()
    stage.do_duties(OPENS)
    first = stage.surveys
    stage.start_clock()
    assert len(stage.tick(OPENS)) == 1

    def first_has_stored() -> bool:
        first.store(OPENS)
        return not first.is_asking

    wait_until(first_has_stored, timeout=30, what="the first clock has stored its answer, too")
    assert len(stage.machines.asked) == 2
    assert len(stage.surveyed()) == len(stage.tick(OPENS)) == 1


def test_in_a_pause_no_server_is_asked(stage: Stage) -> None:
    stage.window()
    stage.pause()
    assert stage.tick(OPENS) == []
    assert stage.machines.asked == []
    stage.end_pause()
    assert len(stage.tick(OPENS + timedelta(minutes=1))) == 1


def test_what_is_found_in_a_pause_starts_its_job_after_it(stage: Stage) -> None:
    stage.window()
    stage.do_duties(OPENS)
    stage.pause()
    assert stage.tick(OPENS) == []
    assert stage.surveyed()[stage.bench.server_id][0] is SurveyOutcome.WORK
    stage.end_pause()
    assert len(stage.tick(OPENS + timedelta(minutes=1))) == 1
    assert stage.machines.asked == [stage.bench.server_id]


def test_a_busy_server_is_asked_when_it_is_free(stage: Stage) -> None:
    stage.window()
    begun = stage.begin(stage.bench.submit(JobKind.HARDEN))
    assert begun is not None
    stage.tick(OPENS)
    assert stage.machines.asked == []
    stage.bench.store.finish(begun, JobStatus.SUCCEEDED, stage.now)
    stage.tick(OPENS + timedelta(minutes=1))
    assert stage.machines.asked == [stage.bench.server_id]


def test_a_backup_starts_without_being_asked_for(stage: Stage) -> None:
    stage.window(kind=JobKind.BACKUP)
    (job,) = stage.do_duties(OPENS)
    assert job.kind is JobKind.BACKUP
    assert stage.machines.asked == []
    assert stage.surveyed() == {}


def test_surveys_are_forgotten_after_a_while(stage: Stage) -> None:
    stage.window()
    stage.tick(OPENS)
    stage.installation.surveys.forget(OPENS)
    assert len(stage.surveyed()) == 1
    stage.installation.surveys.forget(OPENS + timedelta(seconds=1))
    assert stage.surveyed() == {}
