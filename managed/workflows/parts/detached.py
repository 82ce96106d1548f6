"""A step that is a detached run: start it, wait without holding anything, judge its record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from managed.domain.errors import (
    CommandFailed,
    EvidenceMissing,
    Json,
    ManagedError,
    NotFound,
    UnknownOutcome,
)
from managed.domain.questions import RunEnded
from managed.domain.runs import RunRequest, RunState
from managed.domain.secrets import Secret
from managed.server_scripts import script_source
from managed.workflows.steps import StepContext, Wait

RUNS_DIRECTORY = "/var/lib/managed/runs"


@dataclass(frozen=True)
class ServerScript:
    """A script of managed.server_scripts with its input. `limit` is how long it may take; one that
    is not `stoppable` (it runs dpkg) is never ended for that, only given up by us.
    """

    name: str
    given: Mapping[str, Json]
    limit: timedelta
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    needs_gateway: bool = False
    stoppable: bool = True

    def request(self, run_id: str) -> RunRequest:
        return RunRequest(
            run_id=run_id,
            script=script_source(self.name),
            arguments=(json.dumps(self.given),),
            environment=self.environment,
            secrets=self.secrets,
            time_limit=int(self.limit.total_seconds()) if self.stoppable else 0,
        )


Start = Callable[[StepContext, RunRequest], None]


def start_over_ssh(context: StepContext, request: RunRequest) -> None:
    context.world.runs.start(context.endpoint, request)


def detached(
    context: StepContext, step: str, script: ServerScript, start: Start = start_over_ssh
) -> Wait | dict[str, Json]:
    """The script's result.json, or the wait for it.

    The run's id belongs to job, step and attempt, so whoever takes the step up again attaches to
    the same run. Raises CommandFailed with the script's own error, UnknownOutcome (to be tried
    with a new run) when the record does not say how it ended.
    """
    run_id = context.run_id(step)
    if context.timed_out:
        raise UnknownOutcome(f"{script.name} has not ended in time", run_id=run_id)
    if context.answer is None:
        start(context, script.request(run_id))
        grace = timedelta(minutes=2)
        return Wait(RunEnded(run_id, tunnel=script.needs_gateway), script.limit + grace)
    _require_end(context.answer, script.name, run_id)
    result = read_result(context, run_id)
    if context.answer.get("exit_status") != 0:
        raise script_error(script.name, result, context.answer.get("exit_status"))
    return result


def read_result(context: StepContext, run_id: str) -> dict[str, Json]:
    """What the run left in result.json; EvidenceMissing when that is nothing."""
    path = f"{RUNS_DIRECTORY}/{run_id}/result.json"
    try:
        document = json.loads(context.world.shell.read_file(context.endpoint, path))
    except NotFound as error:
        raise EvidenceMissing(f"the run left no {path}", run_id=run_id) from error
    except ValueError as error:
        raise EvidenceMissing(f"{path} is no JSON document", run_id=run_id) from error
    if not isinstance(document, dict):
        raise EvidenceMissing(f"{path} holds no object", run_id=run_id)
    return document


def texts(value: Json) -> list[str]:
    """A list in a script's result, such as its warnings, as texts; empty when it is none."""
    return [str(item) for item in value] if isinstance(value, list) else []


def script_error(script: str, result: Mapping[str, Json], exit_status: Json) -> ManagedError:
    """The script's own account of its failure as an error of ours."""
    error = result.get("error")
    if not isinstance(error, dict):
        error = {}
    return CommandFailed(
        str(error.get("detail") or f"{script} ended with status {exit_status}"),
        hint=str(error.get("hint") or ""),
        script=script,
        script_error=str(error.get("code") or ""),
        exit_status=exit_status,
    )


def _require_end(answer: Mapping[str, Json], script: str, run_id: str) -> None:
    error = answer.get("error")
    if isinstance(error, dict):
        raise CommandFailed(
            f"{script} could not be followed: {error.get('detail')}",
            hint=str(error.get("hint") or ""),
            cause=error.get("code"),
        )
    if answer.get("state") != RunState.FINISHED:
        raise UnknownOutcome(
            f"{script} is {answer.get('state')}: it has left no exit status",
            run_id=run_id,
            state=answer.get("state"),
        )
