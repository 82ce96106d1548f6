"""The restore's step that loads databases: a detached run whose result is its evidence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from managed.domain.errors import CommandFailed, RunLost
from managed.domain.jobs import Job, JobKind
from managed.domain.questions import RunEnded
from managed.domain.runs import RunRequest
from managed.domain.secrets import Secret, SecretPurpose
from managed.drivers.fakes.runs import FakeRuns, Performed
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.storage.database import open_database
from managed.storage.sessions import SessionRecords
from managed.storage.vault import SealedVault
from managed.workflows.restore import WORKFLOW
from managed.workflows.steps import Done, Outcome, StepContext, Wait
from managed.workflows.world import World
from tests.support.jobs import JobBench

RESULT: dict[str, Any] = {
    "ok": True,
    "databases": [{"kind": "mariadb", "name": "all", "bytes": 7, "databases": 2, "seconds": 1.5}],
    "left": [{"kind": "postgresql", "name": "15/main", "why": "it is a standby"}],
    "warnings": ["postgresql 15/main is as its files were copied"],
}
STEP = WORKFLOW.step("load_databases")


@dataclass
class Stage:
    """The step on a server in memory, tried as often as a test likes."""

    bench: JobBench
    world: World
    server: FakeServer
    job: Job

    @property
    def runs(self) -> FakeRuns:
        return cast(FakeRuns, self.world.runs)

    def run(self, attempt: int = 1, answer: dict[str, Any] | None = None) -> Outcome:
        return STEP.run(
            StepContext(
                job=replace(self.job, answer=answer),
                lend_world=lambda: self.world,
                now=self.bench.clock(),
                attempt=attempt,
                emit=lambda _name, _data: None,
                register_child=lambda _pid: None,
            )
        )

    def asked(self, outcome: Outcome) -> RunEnded:
        assert isinstance(outcome, Wait)
        assert isinstance(outcome.question, RunEnded)
        return outcome.question

    def leave(self, run_id: str, result: dict[str, Any]) -> None:
        path = f"/var/lib/managed/runs/{run_id}/result.json"
        self.server.files[path] = json.dumps(result).encode()


@pytest.fixture
def stage(tmp_path: Path, migrated_file: Path) -> Iterator[Stage]:
    path = shutil.copy(migrated_file, tmp_path / "managed.db")
    database = open_database(f"sqlite:///{path}")
    bench = JobBench(database)
    vault = SealedVault(database, os.urandom(32), bench.clock)
    vault.keep(bench.server_id, SecretPurpose.LOGIN_KEY, Secret("key"))
    shell = FakeShell()
    server = shell.add("127.0.0.1", 22, FakeServer("", Secret("key")))
    parts: dict[str, Any] = dict.fromkeys(World.__dataclass_fields__)
    parts |= {"servers": bench.inventory, "vault": vault, "shell": shell}
    parts |= {"rescue_sessions": SessionRecords(database)}
    parts |= {"runs": FakeRuns(shell, lambda _request: Performed(exit_status=None))}
    yield Stage(bench, World(**parts), server, bench.submit(JobKind.RESTORE))
    database.dispose()


def finished(exit_status: int) -> dict[str, Any]:
    return {"state": "finished", "exit_status": exit_status}


def test_databases_are_loaded_on_the_booted_server_before_it_counts_as_back() -> None:
    names = [step.name for step in WORKFLOW.steps]

    assert names[names.index("boot") :] == ["boot", "load_databases", "check", "forget_runs"]
    assert not STEP.interruptible


def test_who_takes_the_step_up_again_attaches_to_the_same_run(stage: Stage) -> None:
    first, second = stage.asked(stage.run()), stage.asked(stage.run())

    assert first == second
    assert stage.runs.started == [first.run_id]


def test_what_was_loaded_is_the_evidence_and_what_was_left_a_warning(stage: Stage) -> None:
    stage.leave(stage.asked(stage.run()).run_id, RESULT)

    assert stage.run(answer=finished(0)) == Done(RESULT, warnings=RESULT["warnings"])


def test_a_failed_load_fails_the_step_with_the_scripts_own_words(stage: Stage) -> None:
    error = {"code": "evidence-missing", "detail": "the dump of x was not loaded", "hint": "look"}
    stage.leave(stage.asked(stage.run()).run_id, {**RESULT, "ok": False, "error": error})

    with pytest.raises(CommandFailed, match="the dump of x was not loaded") as caught:
        stage.run(answer=finished(1))
    assert caught.value.details["script_error"] == "evidence-missing"


def test_a_load_that_a_crash_ended_is_tried_by_a_new_run_of_the_same_load(stage: Stage) -> None:
    loads: list[str] = []

    def perform(request: RunRequest) -> Performed:
        loads.append(json.loads(request.arguments[0])["load"])
        return Performed(exit_status=None)

    stage.runs.perform = perform
    first = stage.asked(stage.run())
    with pytest.raises(RunLost) as caught:
        stage.run(answer={"state": "unknown"})
    assert caught.value.retryable
    stage.job = replace(stage.job, run_numbers={"load_databases": 2})
    second = stage.asked(stage.run(attempt=2))

    assert second.run_id != first.run_id
    assert loads == [stage.job.job_id] * 2


def test_the_limit_is_hours(stage: Stage) -> None:
    outcome = stage.run()

    assert isinstance(outcome, Wait)
    assert outcome.limit >= timedelta(hours=4)
