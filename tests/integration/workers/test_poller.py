"""The poller over fake servers: answers wake jobs, silence does not, offsets move with events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import update
from structlog.testing import capture_logs

from managed.domain.connections import Endpoint
from managed.domain.errors import Json
from managed.domain.jobs import Job, JobStatus
from managed.domain.questions import PowerIs, Question, RunEnded, SshAnswers, TimePassed
from managed.domain.runs import RunReport, RunRequest
from managed.drivers.fakes.runs import FakePolls, FakeRuns, Performed
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.runs import report_of
from managed.drivers.ssh.background import wait_for
from managed.drivers.ssh.keys import new_key_pair
from managed.settings import Settings
from managed.storage.database import writing
from managed.storage.tables import jobs
from managed.storage.waiting import WaitingJobs
from managed.wiring import Installation
from managed.workflows.steps import Done, Outcome, StepContext, Wait
from tests.support.jobs import JobBench, step
from workers import poller as poller_module
from workers.poller import Poller

MARKED = b'@managed {"event": "patch_progress", "done": 1}\n'


@dataclass
class Stage:
    """A waiting job, the server that it asks, and a poller."""

    bench: JobBench
    server: FakeServer
    runs: FakeRuns
    endpoint: Endpoint
    sent: list[str]
    opened: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        world = SimpleNamespace(
            endpoint=lambda _: self.endpoint,
            polls=FakePolls(self.runs),
            tunnels=SimpleNamespace(reverse_socket=self._tunnel),
            gateway=SimpleNamespace(socket=lambda: "/run/here.sock"),
        )
        installation = SimpleNamespace(
            settings=Settings(silence_seconds=300, poll_seconds=0.01),
            waiting=WaitingJobs(self.bench.database),
            clock=self.bench.clock,
            world=world,
        )
        self.poller = Poller(cast(Installation, installation))

    def _tunnel(self, *_: object) -> AbstractContextManager[Any]:
        @contextmanager
        def held() -> Any:
            self.opened.append("tunnel")
            yield SimpleNamespace(is_open=True)

        return held()

    def ask(self, question: Question, *, interruptible: bool = True, **options: Any) -> Job:
        """A job whose only step asks this and records the answer."""

        def run(context: StepContext) -> Outcome:
            if context.job.answer is None:
                return Wait(question, timedelta(minutes=30))
            return Done({"answer": dict(context.job.answer)})

        self.bench.workflow(step("ask", run, interruptible=interruptible))
        job = self.bench.submit(**options)
        self.bench.engine().run(job.job_id)
        return job

    def poll(self) -> None:
        """One pass, to the end of every question."""

        async def once() -> None:
            await self.poller.poll_once()
            while self.poller.is_asking:
                await asyncio.sleep(0)

        wait_for(once())

    def poll_for(self, minutes: int) -> None:
        """A pass every half minute."""
        for _ in range(2 * minutes):
            self.bench.clock.pass_time(seconds=30)
            self.poll()

    def answer(self, job: Job) -> Any:
        return self.bench.queue.job(job.job_id).answer


@pytest.fixture
def stage(database: Database, monkeypatch: pytest.MonkeyPatch) -> Stage:
    host, login, shell = new_key_pair(), new_key_pair(), FakeShell()
    server = shell.add("127.0.0.1", 22, FakeServer(host.public_key, login.private_key))
    endpoint = Endpoint("127.0.0.1", 22, "root", host.public_key, login.private_key)
    sent: list[str] = []
    monkeypatch.setattr(poller_module, "send", lambda _, job_id: sent.append(job_id))

    def perform(_: RunRequest) -> Performed:
        return Performed(b"begun\n", None)

    return Stage(JobBench(database), server, FakeRuns(shell, perform), endpoint, sent)


def test_an_ended_run_wakes_its_job_after_its_whole_log_is_kept(stage: Stage) -> None:
    job = stage.ask(RunEnded("j.ask.1"))
    stage.runs.start(stage.endpoint, RunRequest("j.ask.1", "#!/bin/sh\n"))
    stage.poll()
    assert stage.answer(job) is None
    stage.runs.finish(stage.endpoint, "j.ask.1", 0, MARKED + b"end\n")
    stage.poll()
    stage.poll()
    assert stage.answer(job)["exit_status"] == 0
    assert stage.sent == [job.job_id]
    said = [(e.type, e.data) for e in stage.bench.events.after(job.job_id, 0)]
    assert said[-3:] == [
        ("run_output", {"lines": ["begun"]}),
        ("patch_progress", {"done": 1}),
        ("run_output", {"lines": ["end"]}),
    ]


def test_a_run_without_a_record_is_an_answer_too(stage: Stage) -> None:
    job = stage.ask(RunEnded("j.ask.1"))
    stage.poll()
    assert stage.answer(job)["state"] == "absent"


def test_a_silent_server_leaves_the_question_open_until_its_time_is_over(stage: Stage) -> None:
    job = stage.ask(SshAnswers())
    stage.server.is_up = False
    stage.poll()
    assert stage.answer(job) is None
    stage.bench.clock.pass_time(minutes=31)
    stage.poll()
    assert stage.answer(job) == {"outcome": "timed-out"}


def test_a_wait_for_time_alone_ends_when_it_is_over(stage: Stage) -> None:
    job = stage.ask(TimePassed())
    stage.poll()
    assert stage.answer(job) is None
    stage.bench.clock.pass_time(minutes=31)
    stage.poll()
    assert stage.answer(job) == {"outcome": "timed-out"}


def test_another_boot_is_waited_for(stage: Stage) -> None:
    job = stage.ask(SshAnswers(not_boot_id=stage.server.boot_id))
    stage.poll()
    assert stage.answer(job) is None
    stage.server.reboot()
    stage.poll()
    assert stage.answer(job)["boot_id"] == stage.server.boot_id


def test_another_host_key_is_an_answer_that_fails_the_step(stage: Stage) -> None:
    job = stage.ask(SshAnswers())
    stage.server.host_key = new_key_pair().public_key
    stage.poll()
    assert stage.answer(job)["error"]["code"] == "host-key-changed"


def test_a_hanging_server_frees_a_cancelled_job_and_a_working_one_does_not(stage: Stage) -> None:
    job = stage.ask(RunEnded("j.ask.1"), interruptible=False)
    stage.runs.start(stage.endpoint, RunRequest("j.ask.1", "#!/bin/sh\n"))
    stage.bench.queue.cancel(job.job_id, "a rescue goes first", stage.bench.clock())
    stage.poll_for(minutes=6)
    assert stage.answer(job) is None, "dpkg works: it is left alone"
    stage.server.is_up = False
    stage.poll_for(minutes=4)
    assert stage.answer(job) is None
    stage.poll_for(minutes=2)
    assert stage.answer(job) == {"outcome": "interrupted"}
    stage.bench.engine().run(job.job_id)
    assert stage.bench.queue.job(job.job_id).status is JobStatus.CANCELLED


def test_a_server_is_not_silent_while_nobody_asks(stage: Stage) -> None:
    """The clock was away for an upgrade, and again; then sshd was, for the upgrade of its own."""
    job = stage.ask(RunEnded("j.ask.1"), interruptible=False)
    stage.runs.start(stage.endpoint, RunRequest("j.ask.1", "#!/bin/sh\n"))
    stage.bench.queue.cancel(job.job_id, "a rescue goes first", stage.bench.clock())
    stage.poll()
    stage.server.is_up = False
    for _ in range(2):
        stage.bench.clock.pass_time(minutes=6)
        stage.poll()
    assert stage.answer(job) is None
    stage.poll_for(minutes=3)
    stage.server.is_up = True
    stage.poll()
    stage.server.is_up = False
    stage.poll_for(minutes=4)
    assert stage.answer(job) is None, "its answer has ended the silence"


def test_the_tunnel_is_held_while_a_run_needs_it(stage: Stage) -> None:
    stage.ask(RunEnded("j.ask.1", tunnel=True))
    stage.runs.start(stage.endpoint, RunRequest("j.ask.1", "#!/bin/sh\n"))
    stage.poll()
    stage.poll()
    assert stage.opened == ["tunnel"]


class OddRuns(FakeRuns):
    """Every look prints this instead of what the runner's record says."""

    printed = b"hi\n"

    def look(self, endpoint: Endpoint, run_id: str, offset: int) -> RunReport:
        return report_of(self.printed, offset)


def oddly_answering(stage: Stage, runs: FakeRuns) -> None:
    stage.poller._world.polls = FakePolls(runs)  # type: ignore[misc]


def test_an_odd_answer_is_no_answer_and_the_wait_still_ends(stage: Stage) -> None:
    oddly_answering(stage, OddRuns(stage.runs.shell))
    job = stage.ask(RunEnded("j.ask.1"))
    stage.poll()
    assert stage.answer(job) is None
    stage.bench.clock.pass_time(minutes=31)
    stage.poll()
    assert stage.answer(job) == {"outcome": "timed-out"}


def test_a_server_that_answers_oddly_counts_as_silent_for_a_cancel(stage: Stage) -> None:
    oddly_answering(stage, OddRuns(stage.runs.shell))
    job = stage.ask(RunEnded("j.ask.1"), interruptible=False)
    stage.bench.queue.cancel(job.job_id, "a rescue goes first", stage.bench.clock())
    stage.bench.clock.pass_time(minutes=6)
    stage.poll()
    assert stage.answer(job) is None, "once is no silence"
    stage.poll_for(minutes=6)
    assert stage.answer(job) == {"outcome": "interrupted"}


def test_what_fails_on_our_side_is_no_silence_of_the_servers(stage: Stage) -> None:
    def out_of_order(*_: object) -> RunReport:
        raise TypeError("a defect")

    stage.poller._world.polls = SimpleNamespace(look=out_of_order)  # type: ignore[misc, assignment]
    job = stage.ask(RunEnded("j.ask.1"), interruptible=False)
    stage.bench.queue.cancel(job.job_id, "a rescue goes first", stage.bench.clock())
    stage.poll_for(minutes=10)
    assert stage.answer(job) is None


def test_a_defect_of_ours_leaves_the_limit_in_force(stage: Stage) -> None:
    job = stage.ask(PowerIs())
    stage.poll()
    assert stage.answer(job) is None, "the world of this test has no hypervisor"
    stage.bench.clock.pass_time(minutes=31)
    stage.poll()
    assert stage.answer(job) == {"outcome": "timed-out"}


@pytest.mark.parametrize("forged", ["job_ended", "x" * 64])
def test_a_server_cannot_forge_events_or_block_its_own_log(stage: Stage, forged: str) -> None:
    job = stage.ask(RunEnded("j.ask.1"))
    stage.runs.start(stage.endpoint, RunRequest("j.ask.1", "#!/bin/sh\n"))
    line = f'@managed {{"event": "{forged}", "status": "succeeded"}}'
    stage.runs.finish(stage.endpoint, "j.ask.1", 0, f"{line}\n\0\n".encode())
    stage.poll()
    stage.poll()
    assert stage.answer(job)["exit_status"] == 0
    last = stage.bench.events.after(job.job_id, 0)[-1]
    assert (last.type, last.data["lines"]) == ("run_output", ["begun", line, r"\x00"])


def test_what_cannot_be_written_does_not_keep_a_wait_from_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(_: str) -> list[tuple[str, Mapping[str, Json]]]:
        return [("x" * 64, {"not JSON": cast(Json, object())})]

    monkeypatch.setattr(poller_module, "events_of_log", too_long)
    job = stage.ask(RunEnded("j.ask.1"))
    stage.runs.start(stage.endpoint, RunRequest("j.ask.1", "#!/bin/sh\n"))
    stage.poll()
    assert stage.answer(job) is None
    stage.bench.clock.pass_time(minutes=31)
    stage.poll()
    assert stage.answer(job) == {"outcome": "timed-out"}


def test_a_question_of_a_later_version_hinders_no_other_and_keeps_its_limit(stage: Stage) -> None:
    unknown = stage.ask(RunEnded("j.ask.0"))
    later = {"kind": "run-ended", "run_id": "j.ask.0", "field of a later version": 1}
    with writing(stage.bench.database) as connection:
        connection.execute(update(jobs).values(question=later))
    known = stage.ask(RunEnded("j.ask.1"), server_id=stage.bench.add_server("two"))
    stage.poll()
    assert stage.answer(known)["state"] == "absent"
    assert stage.answer(unknown) is None
    assert stage.bench.queue.job(unknown.job_id).question == later
    stage.bench.clock.pass_time(minutes=31)
    stage.poll()
    assert stage.answer(unknown) == {"outcome": "timed-out"}


def test_a_round_that_breaks_is_not_the_last_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[int] = []

    async def run() -> None:
        stop = asyncio.Event()

        async def break_down() -> None:
            rounds.append(1)
            if len(rounds) == 3:
                stop.set()
            raise TypeError("a defect")

        monkeypatch.setattr(stage.poller, "poll_once", break_down)
        await asyncio.wait_for(stage.poller.run(stop), 30)

    wait_for(run())
    assert len(rounds) == 3


def test_a_node_that_hangs_holds_up_no_other_question(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit counts too, though its call never comes back."""
    monkeypatch.setattr(poller_module, "_NODE_SECONDS", 0.1)
    released = threading.Event()
    world = stage.poller._world
    world.servers = SimpleNamespace(get=lambda _: None)  # type: ignore[misc, assignment]
    world.hypervisor = lambda _: SimpleNamespace(  # type: ignore[method-assign, assignment, misc]
        power_state=lambda _: released.wait(60)
    )
    try:
        hanging = [
            stage.ask(PowerIs(), server_id=stage.bench.add_server(f"{n}")) for n in range(40)
        ]
        known = stage.ask(RunEnded("j.ask.1"))
        stage.bench.clock.pass_time(minutes=31)
        with capture_logs() as logs:
            stage.poll()
    finally:
        released.set()
    assert {entry["event"] for entry in logs} == {"question_failed"}
    assert {entry["error"] for entry in logs} == {"hypervisor-unavailable"}
    assert stage.answer(known)["state"] == "absent"
    assert {stage.answer(job)["outcome"] for job in hanging} == {"timed-out"}
