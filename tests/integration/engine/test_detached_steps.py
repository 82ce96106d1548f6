"""Steps that are detached runs, through engine and store: whatever breaks, one run at a time."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy import Engine as Database

from managed.domain.connections import Endpoint
from managed.domain.errors import Json, ServerUnreachable
from managed.domain.jobs import Job, JobKind, JobStatus
from managed.domain.runs import RunRequest, RunState
from managed.domain.secrets import Secret, SecretPurpose
from managed.drivers.fakes.runs import FakeRuns, Performed
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.storage.sessions import SessionRecords
from managed.storage.vault import SealedVault
from managed.storage.waiting import WaitingJobs
from managed.workflows.engine import RunEnd
from managed.workflows.parts.detached import ServerScript, detached
from managed.workflows.steps import Done, Outcome, StepContext, Wait
from managed.workflows.world import World
from tests.support.jobs import JobBench, step


class ShakyRuns(FakeRuns):
    """Loses the connection when a test says so."""

    after_claim: bool = False
    stop_fails: bool = False
    stopped: list[str]

    def start(self, endpoint: Endpoint, request: RunRequest) -> None:
        super().start(endpoint, request)
        if self.after_claim:
            self.after_claim = False
            raise ServerUnreachable("the connection is gone")

    def stop(self, endpoint: Endpoint, run_id: str) -> None:
        self.stopped.append(run_id)
        if self.stop_fails:
            self.stop_fails = False
            raise ServerUnreachable("the connection is gone")
        super().stop(endpoint, run_id)


class ShakyShell(FakeShell):
    """Fails the first `bad_reads` reads of a file."""

    bad_reads: int = 0

    def read_file(
        self, endpoint: Endpoint, path: str, *, limit: int = 2**26, timeout: float = 600
    ) -> bytes:
        if self.bad_reads:
            self.bad_reads -= 1
            raise ServerUnreachable("the connection is gone")
        return super().read_file(endpoint, path, limit=limit, timeout=timeout)


@dataclass
class Stage:
    bench: JobBench
    world: World
    server: FakeServer
    shell: ShakyShell
    runs: ShakyRuns

    def take(self) -> Job:
        """A job whose one step is a run, and whose undo stops that run."""
        return self._job(ServerScript("take_backup", {}, timedelta(minutes=30)))

    def update(self) -> Job:
        """A job whose one step is a run that nobody may cut off."""
        script = ServerScript("take_backup", {}, timedelta(minutes=30), stoppable=False)
        return self._job(script)

    def _job(self, script: ServerScript) -> Job:
        def run(context: StepContext) -> Outcome:
            found = detached(context, "take", script)
            return found if isinstance(found, Wait) else Done(found)

        def stop(context: StepContext) -> None:
            context.world.runs.stop(context.endpoint, context.run_id("take"))

        undo = stop if script.stoppable else None
        self.bench.workflow(step("take", run, undo=undo, interruptible=script.stoppable))
        return self.bench.submit()

    def go_on(self, job: Job) -> RunEnd:
        """An engine takes the job up, long enough after the last try."""
        self.bench.clock.pass_time(minutes=1)
        return replace(self.bench.engine(), world=self.world).run(job.job_id)

    def answer(self, job: Job, **facts: Json) -> RunEnd:
        waiting = WaitingJobs(self.bench.database)
        (asked,) = waiting.questions()
        assert waiting.wake(asked, {"outcome": "answered", **facts})
        return self.go_on(job)

    def time_out(self, job: Job) -> RunEnd:
        waiting = WaitingJobs(self.bench.database)
        (asked,) = waiting.questions()
        assert waiting.wake(asked, {"outcome": "timed-out"})
        return self.go_on(job)

    def leave(self, run_id: str, **result: Json) -> None:
        path = f"/var/lib/managed/runs/{run_id}/result.json"
        self.server.files[path] = json.dumps(result).encode()

    def job(self, job: Job) -> Job:
        return self.bench.queue.job(job.job_id)

    def state(self, run_id: str) -> RunState:
        endpoint = self.world.endpoint(self.bench.server_id)
        return self.runs.look(endpoint, run_id, 0).state


@pytest.fixture
def stage(database: Database) -> Stage:
    bench = JobBench(database)
    vault = SealedVault(database, os.urandom(32), bench.clock)
    vault.keep(bench.server_id, SecretPurpose.LOGIN_KEY, Secret("key"))
    shell = ShakyShell()
    server = shell.add("127.0.0.1", 22, FakeServer("", Secret("key")))
    runs = ShakyRuns(shell, lambda _request: Performed(b"begun\n", None))
    runs.stopped = []
    parts: dict[str, Any] = dict.fromkeys(World.__dataclass_fields__)
    parts |= {"servers": bench.inventory, "vault": vault, "shell": shell, "runs": runs}
    parts |= {"rescue_sessions": SessionRecords(database)}
    return Stage(bench, World(**parts), server, shell, runs)


FINISHED: dict[str, Json] = {"state": "finished", "exit_status": 0, "boot_id": "b"}


def test_a_blip_while_the_result_is_read_does_not_start_the_work_again(stage: Stage) -> None:
    job = stage.take()
    assert stage.go_on(job) is RunEnd.WAITING
    run_id = f"{job.job_id}.take.1"
    stage.leave(run_id, packages=7)
    stage.shell.bad_reads = 2
    assert stage.answer(job, **FINISHED) is RunEnd.LATER
    assert stage.go_on(job) is RunEnd.LATER
    assert stage.go_on(job) is RunEnd.ENDED
    assert stage.runs.started == [run_id]
    done = stage.job(job).done_step("take")
    assert done is not None
    assert (done.result, done.attempt) == ({"packages": 7}, 3)


def test_a_start_whose_answer_was_lost_is_attached_to(stage: Stage) -> None:
    job = stage.take()
    stage.runs.after_claim = True
    assert stage.go_on(job) is RunEnd.LATER
    assert stage.go_on(job) is RunEnd.WAITING
    assert stage.runs.started == [f"{job.job_id}.take.1"]
    (asked,) = WaitingJobs(stage.bench.database).questions()
    assert getattr(asked.question, "run_id", "") == f"{job.job_id}.take.1"


def test_a_start_that_reached_nobody_is_made_again_under_the_same_name(stage: Stage) -> None:
    job = stage.take()
    stage.server.is_up = False
    assert stage.go_on(job) is RunEnd.LATER
    stage.server.is_up = True
    assert stage.go_on(job) is RunEnd.WAITING
    assert stage.runs.started == [f"{job.job_id}.take.1"]


def test_a_run_that_ended_unseen_is_waited_for_so_that_its_log_is_kept(stage: Stage) -> None:
    stage.runs.perform = lambda _request: Performed(b"begun\nended\n", 0)
    job = stage.take()
    stage.runs.after_claim = True
    assert stage.go_on(job) is RunEnd.LATER
    assert stage.go_on(job) is RunEnd.WAITING


def test_a_run_that_a_reboot_ended_is_followed_by_one_new_run(stage: Stage) -> None:
    job = stage.take()
    stage.go_on(job)
    stage.server.reboot()
    assert stage.answer(job, state="unknown", exit_status=None) is RunEnd.LATER
    assert stage.go_on(job) is RunEnd.WAITING
    assert stage.runs.started == [f"{job.job_id}.take.{n}" for n in (1, 2)]
    stage.leave(f"{job.job_id}.take.2", packages=2)
    assert stage.answer(job, **FINISHED) is RunEnd.ENDED
    assert stage.job(job).status is JobStatus.SUCCEEDED


def test_a_stoppable_run_past_its_time_is_ended_and_fails(stage: Stage) -> None:
    job = stage.take()
    stage.go_on(job)
    assert stage.time_out(job) is RunEnd.ENDED
    run_id = f"{job.job_id}.take.1"
    error = stage.job(job).error
    assert error is not None
    assert error["detail"] == "take_backup has not ended within 30 minutes and was ended"
    assert stage.runs.started == [run_id]
    assert stage.state(run_id) is RunState.FINISHED


def test_an_unstoppable_run_past_its_time_is_left_alone_and_said(stage: Stage) -> None:
    job = stage.update()
    stage.go_on(job)
    assert stage.time_out(job) is RunEnd.ENDED
    run_id = f"{job.job_id}.take.1"
    error = stage.job(job).error
    assert error is not None
    assert error["code"] == "still-running"
    assert stage.runs.started == [run_id]
    assert stage.state(run_id) is RunState.RUNNING


def test_a_run_found_ended_when_its_time_was_over_still_counts(stage: Stage) -> None:
    job = stage.take()
    stage.go_on(job)
    run_id = f"{job.job_id}.take.1"
    stage.runs.finish(stage.world.endpoint(stage.bench.server_id), run_id, 0)
    stage.leave(run_id, packages=1)
    assert stage.time_out(job) is RunEnd.WAITING
    assert stage.answer(job, **FINISHED) is RunEnd.ENDED
    assert stage.job(job).status is JobStatus.SUCCEEDED


def test_the_log_is_read_on_where_the_last_wait_left_it(stage: Stage) -> None:
    job = stage.take()
    stage.go_on(job)
    waiting = WaitingJobs(stage.bench.database)
    (asked,) = waiting.questions()
    assert waiting.note(
        asked, replace(cast(Any, asked.question), offset=6), [], stage.bench.clock()
    )
    stage.server.is_up = False
    assert stage.time_out(job) is RunEnd.LATER
    stage.server.is_up = True
    assert stage.go_on(job) is RunEnd.WAITING
    (asked,) = waiting.questions()
    assert getattr(asked.question, "offset", None) == 6


def test_the_undo_stops_the_last_run_also_when_it_is_tried_again(stage: Stage) -> None:
    job = stage.take()
    stage.go_on(job)
    stage.server.reboot()
    stage.answer(job, state="unknown", exit_status=None)
    assert stage.go_on(job) is RunEnd.WAITING
    second = f"{job.job_id}.take.2"
    assert stage.state(second) is RunState.RUNNING
    stage.runs.stop_fails = True
    stage.bench.queue.cancel(job.job_id, "by anna", stage.bench.clock())
    assert stage.go_on(job) is RunEnd.LATER
    assert stage.go_on(job) is RunEnd.ENDED
    assert stage.runs.stopped == [second, second]
    assert stage.job(job).status is JobStatus.CANCELLED


@pytest.mark.parametrize(
    ("status", "words"),
    [(124, "its time limit was over"), (143, "was told to stop"), (137, "ran out of memory")],
)
def test_what_ended_a_run_is_said_in_words(stage: Stage, status: int, words: str) -> None:
    job = stage.take()
    stage.go_on(job)
    assert stage.answer(job, state="finished", exit_status=status) is RunEnd.ENDED
    error = stage.job(job).error
    assert error is not None
    assert words in str(error["detail"])


def test_a_script_that_failed_without_a_result_says_its_status(stage: Stage) -> None:
    job = stage.take()
    stage.go_on(job)
    stage.answer(job, state="finished", exit_status=3)
    error = stage.job(job).error
    assert error is not None
    assert error["detail"] == "take_backup ended with status 3"


@pytest.mark.parametrize("moment", ["it works on", "a reboot ended it"])
def test_a_rescue_gets_past_a_patch_that_hangs_while_ssh_answers(stage: Stage, moment: str) -> None:
    patch = stage.update()
    stage.bench.workflow(step("rescue"), kind=JobKind.RESCUE)
    stage.go_on(patch)
    rescue = stage.bench.submit(JobKind.RESCUE)
    assert stage.job(patch).status is JobStatus.WAITING, "dpkg is left alone while it has time"
    if moment == "it works on":
        end = stage.time_out(patch)
    else:
        stage.server.reboot()
        end = stage.answer(patch, state="unknown", exit_status=None)
    assert end is RunEnd.ENDED
    assert stage.runs.started == [f"{patch.job_id}.take.1"]
    assert stage.go_on(rescue) is RunEnd.ENDED
    assert stage.job(rescue).status is JobStatus.SUCCEEDED
