"""The poller over fake servers: answers wake jobs, silence does not, offsets move with events."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine as Database

from managed.domain.connections import Endpoint
from managed.domain.jobs import Job, JobStatus
from managed.domain.questions import Question, RunEnded, SshAnswers
from managed.domain.runs import RunRequest
from managed.drivers.fakes.runs import FakePolls, FakeRuns, Performed
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.ssh.background import wait_for
from managed.drivers.ssh.keys import new_key_pair
from managed.settings import Settings
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
            settings=Settings(silence_seconds=300),
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

    def ask(self, question: Question, *, interruptible: bool = True) -> Job:
        """A job whose only step asks this and records the answer."""

        def run(context: StepContext) -> Outcome:
            if context.job.answer is None:
                return Wait(question, timedelta(minutes=30))
            return Done({"answer": dict(context.job.answer)})

        self.bench.workflow(step("ask", run, interruptible=interruptible))
        job = self.bench.submit()
        self.bench.engine().run(job.job_id)
        return job

    def poll(self) -> None:
        """One pass, to the end of every question."""

        async def once() -> None:
            await self.poller.poll_once()
            while self.poller.is_asking:
                await asyncio.sleep(0)

        wait_for(once())

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
    stage.bench.clock.pass_time(minutes=6)
    stage.poll()
    assert stage.answer(job) is None, "dpkg works: it is left alone"
    stage.server.is_up = False
    stage.bench.clock.pass_time(minutes=2)
    stage.poll()
    assert stage.answer(job) is None
    stage.bench.clock.pass_time(minutes=4)
    stage.poll()
    assert stage.answer(job) == {"outcome": "interrupted"}
    stage.bench.engine().run(job.job_id)
    assert stage.bench.queue.job(job.job_id).status is JobStatus.CANCELLED


def test_the_tunnel_is_held_while_a_run_needs_it(stage: Stage) -> None:
    stage.ask(RunEnded("j.ask.1", tunnel=True))
    stage.runs.start(stage.endpoint, RunRequest("j.ask.1", "#!/bin/sh\n"))
    stage.poll()
    stage.poll()
    assert stage.opened == ["tunnel"]
