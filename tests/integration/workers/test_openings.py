"""Windows start what they are for, once, and only while they are open; what was missed is told.
Servers exist in memory only; what real ones answer to a survey is tested in test_surveys.py.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.errors import SecretUnreadable
from managed.domain.jobs import Job, JobKind, JobStatus
from managed.domain.rescue import RescueSession
from managed.domain.servers import ServerStatus
from managed.domain.surveys import Survey, SurveyOutcome
from managed.domain.windows import Window, WindowOwner
from managed.drivers.fakes.runs import FakePolls, FakeRuns
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.ssh.keys import new_key_pair
from managed.settings import Settings
from managed.storage.copies.aftermath import pause_everything
from managed.storage.database import DatabaseUnavailable, writing
from managed.wiring import Installation
from tests.support.jobs import JobBench
from tests.support.surveys import nothing_to_do, update
from tests.support.waiting import wait_until
from workers import openings as openings_module
from workers import surveys as surveys_module
from workers import time_scales as time_scales_module
from workers.openings import Openings
from workers.surveys import Surveys

CUSTOMER = Customer("c0000000-0000-4000-8000-000000000001", "Anna", "anna@example.org")
PLAN = Plan("b0000000-0000-4000-8000-000000000001", "managed", PlanKind.MANAGED, True)
UNMANAGED = Plan("b0000000-0000-4000-8000-000000000002", "bare", PlanKind.UNMANAGED)
OPENS = datetime(2026, 4, 1, 2, tzinfo=UTC)
CLOSES = OPENS + timedelta(hours=2)
NO_SURVEY = "it was not known what there was to do: no survey had ended while it was open"


class Machines(FakePolls):
    """The machines that servers run on. A survey finds one update on them, unless `documents` says
    for a server what it finds. What is asked of one in `slow` is answered when that is set, and so
    are questions to one of `hung_nodes`; `nodes` says on which of them a server is.
    """

    def __init__(self, bench: JobBench) -> None:
        super().__init__(FakeRuns(FakeShell()))
        self.bench = bench
        self.documents: dict[str, dict[str, Any]] = {}
        self.host_keys: dict[str, str] = {}
        self.asked: list[str] = []
        self.slow: dict[str, threading.Event] = {}
        self.nodes: dict[str, str] = {}
        self.hung_nodes: dict[str, threading.Event] = {}
        self.asked_nodes: list[str] = []
        self._names: dict[int, str] = {}
        self._login = new_key_pair().private_key

    def machine(self, server_id: str) -> FakeServer:
        """It stands at a port of its own, on an address that all of them share."""
        port = next((p for p, one in self._names.items() if one == server_id), 0)
        if not port:
            port = len(self._names) + 1
            self._names[port] = server_id
            key = self.host_keys.setdefault(server_id, new_key_pair().public_key)
            machine = self.runs.shell.add("127.0.0.1", port, FakeServer(key, self._login))
            machine.commands["python3"] = lambda argv, _: self._surveyed(server_id, argv)
        return self.runs.shell.servers["127.0.0.1", port]

    def endpoint(self, server_id: str) -> Endpoint:
        key = self.machine(server_id).host_key
        port = next(p for p, one in self._names.items() if one == server_id)
        return Endpoint("127.0.0.1", port, "root", key, self._login)

    def server(self, server_id: str) -> SimpleNamespace:
        return SimpleNamespace(
            host_key=self.host_keys[server_id], node_id=self.nodes.get(server_id)
        )

    def node(self, node_id: str) -> SimpleNamespace:
        return SimpleNamespace(capabilities=lambda: self._capabilities(node_id))

    def _capabilities(self, node_id: str) -> SimpleNamespace:
        self.asked_nodes.append(node_id)
        if node_id in self.hung_nodes:
            self.hung_nodes[node_id].wait()
        return SimpleNamespace(time_scale=1.0)

    async def run(self, endpoint: Endpoint, *given: Any, **options: Any) -> CommandResult:
        server_id = self._names[endpoint.port]
        self.asked.append(server_id)
        if server_id in self.slow:
            await asyncio.to_thread(self.slow[server_id].wait)
        return await super().run(endpoint, *given, **options)

    def _surveyed(self, server_id: str, argv: Sequence[str]) -> CommandResult:
        usual = {**nothing_to_do(self.bench.clock()), "pending": [update("vim")]}
        found = {**usual, **json.loads(argv[2]), **self.documents.get(server_id, {})}
        return CommandResult(0, f"a login shell prints\n{json.dumps(found)}\n", "")


@dataclass
class Stage:
    """An installation with a customer, a managed plan, and one server on it."""

    bench: JobBench
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bench.clock.now = OPENS - timedelta(hours=1)
        self.installation = Installation(Settings(), self.bench.database, self.bench.clock)
        self.machines = Machines(self.bench)
        vars(self.installation)["world"] = SimpleNamespace(
            endpoint=self.machines.endpoint,
            servers=SimpleNamespace(get=self.machines.server),
            hypervisor_of=self.machines.node,
            polls=self.machines,
        )
        self.start_clock()
        customers = self.installation.customers
        with writing(self.bench.database) as connection:
            customers.add(connection, CUSTOMER, self.now)
            for plan in (PLAN, UNMANAGED):
                customers.add_plan(connection, plan, self.now)
        self.place(self.bench.server_id, PLAN)

    @property
    def now(self) -> datetime:
        return self.bench.clock()

    def start_clock(self) -> None:
        """Another process of the clock, or the first one: it remembers nothing."""
        self.surveys = Surveys(self.installation)
        self.openings = Openings(self.installation, self.surveys, self.sent.append)

    def place(self, server_id: str, plan: Plan) -> None:
        with writing(self.bench.database) as connection:
            self.installation.customers.place(
                connection,
                self.bench.inventory.get(server_id),
                CUSTOMER.customer_id,
                plan.plan_id,
            )

    def window(
        self,
        owner: WindowOwner = WindowOwner.PLAN,
        owner_id: str = PLAN.plan_id,
        kind: JobKind = JobKind.PATCH,
        rule: str = "FREQ=DAILY;BYHOUR=2",
    ) -> Window:
        window = Window(
            window_id=f"{owner}-{kind}",
            owner=owner,
            owner_id=owner_id,
            job_kind=kind,
            rule=rule,
            zone="UTC",
            minutes=120,
            starts_on=date(2026, 1, 1),
            created_at=self.now,
        )
        with writing(self.bench.database) as connection:
            self.installation.windows.add(connection, window)
        return window

    def tick(self, at: datetime) -> list[Job]:
        """What the clock does at that time, and again when the servers that it asked have answered;
        all jobs that there are then, oldest first.
        """
        self.do_duties(at)
        wait_until(lambda: self.all_answered(at), timeout=30, what="the servers have answered")
        return self.do_duties(at)

    def do_duties(self, at: datetime) -> list[Job]:
        self.bench.clock.now = at
        self.surveys.store(at)
        self.openings.start(at)
        self.openings.end_too_late(at)
        self.openings.record_missed(at)
        return list(reversed(self.bench.queue.find(limit=200)))

    def all_answered(self, at: datetime) -> bool:
        self.surveys.store(at)
        return not self.surveys.is_asking

    def nothing_to_do(self, server_id: str | None = None) -> None:
        """Its next survey finds that it is up to date."""
        self.machines.documents[server_id or self.bench.server_id] = {"pending": []}

    def surveyed(self) -> dict[str, tuple[SurveyOutcome, str]]:
        """What was found last, by server."""
        found = self.installation.surveys.find(since=datetime(2026, 1, 1, tzinfo=UTC), limit=200)
        return {one.server_id: (one.finding.outcome, one.finding.detail) for one in reversed(found)}

    def missed(self) -> list[tuple[JobKind, datetime, str]]:
        found = self.installation.windows.missed(since=datetime(2026, 1, 1, tzinfo=UTC))
        return [(one.job_kind, one.opening.starts_at, one.reason) for one in reversed(found)]

    def begin(self, job: Job) -> Job | None:
        claimed = self.bench.store.claim(job.job_id, "w", self.now, timedelta(minutes=1))
        return claimed[0] if claimed else None

    def pause(self) -> None:
        with writing(self.bench.database) as connection:
            self.installation.windows.begin_pause(connection, "a bad update", "kim", self.now)

    def end_pause(self) -> None:
        with writing(self.bench.database) as connection:
            self.installation.windows.end_pause(connection)


Spoil = Callable[[Stage, FakeServer], object]


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
    stage.bench.inventory.set_status(stage.bench.server_id, ServerStatus.RESCUE)
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
