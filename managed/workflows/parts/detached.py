"""A step that is a detached run: start it, wait without holding anything, judge its record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from managed.domain.documents import LARGEST_DOCUMENT, parsed_document
from managed.domain.errors import (
    CommandFailed,
    EvidenceMissing,
    Json,
    ManagedError,
    NotFound,
    RunLost,
    ServerUnreachable,
    StillRunning,
)
from managed.domain.questions import RunEnded
from managed.domain.runs import RunAction, RunRequest, RunState, end_in_words, run_action
from managed.domain.secrets import Secret
from managed.server_scripts import script_source
from managed.workflows.steps import StepContext, Wait

RUNS_DIRECTORY = "/var/lib/managed/runs"
_GRACE = timedelta(minutes=2)
_MOST_TEXTS = 200


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

    The run's id belongs to job and step, so whoever takes the step up again, after a crash or an
    error, attaches to the same run. Raises CommandFailed with the script's own error or with what
    ended it, RunLost (to be tried with a new run) when its record does not say how it ended,
    StillRunning when it works on past its time.
    """
    run_id = context.run_id(step)
    answered = _answered_state(context, script.name)
    seen = _look(context, run_id) if answered is None else None
    match run_action(answered, seen, overdue=context.timed_out):
        case RunAction.START:
            start(context, script.request(run_id))
        case RunAction.READ:
            return _result(context, script.name, run_id)
        case RunAction.NEW_RUN:
            raise RunLost(f"{script.name} was cut off: it has left no exit status", run_id=run_id)
        case RunAction.GIVE_UP:
            raise _outlasted(context, script, run_id)
        case RunAction.WAIT:
            pass
    question = RunEnded(run_id, tunnel=script.needs_gateway, offset=_offset(context, run_id))
    return Wait(question, script.limit + _GRACE)


def _answered_state(context: StepContext, script: str) -> RunState | None:
    """What the poller has told of the run, if it has told anything yet."""
    if context.answer is None:
        return None
    error = context.answer.get("error")
    if isinstance(error, dict):
        raise CommandFailed(
            f"{script} could not be followed: {error.get('detail')}",
            hint=str(error.get("hint") or ""),
            cause=error.get("code"),
        )
    return RunState(str(context.answer.get("state")))


def _look(context: StepContext, run_id: str) -> RunState | None:
    """The state of a run that an earlier try may have started; None where nobody can tell. Then
    starting it is right: a claimed run is only attached to, and a start knows how to get at its
    server (it boots an ended rescue session again).
    """
    if context.attempt == 1 and not context.timed_out:
        return None
    offset = _offset(context, run_id)
    try:
        return context.world.runs.look(context.endpoint, run_id, offset).state
    except ServerUnreachable:
        return None


def _offset(context: StepContext, run_id: str) -> int:
    """How far the run's log has been read by an earlier wait for it."""
    question = context.job.question or {}
    offset = question.get("offset")
    same = question.get("kind") == RunEnded.kind and question.get("run_id") == run_id
    return offset if same and isinstance(offset, int) else 0


def _outlasted(context: StepContext, script: ServerScript, run_id: str) -> ManagedError:
    """The failure of a run that works on past its time; it is ended where that does no harm."""
    minutes = script.limit.total_seconds() / 60
    what = f"{script.name} has not ended within {minutes:.0f} minutes"
    if not script.stoppable:
        return StillRunning(
            f"{what}; it is left alone, because ending it half-way would do harm",
            hint="Look at the server: the work goes on there until it ends by itself.",
            run_id=run_id,
        )
    try:
        context.world.runs.stop(context.endpoint, run_id)
    except CommandFailed as error:
        return StillRunning(f"{what} and cannot be ended: {error.message}", run_id=run_id)
    return CommandFailed(f"{what} and was ended", run_id=run_id)


def _result(context: StepContext, script: str, run_id: str) -> dict[str, Json]:
    """The result of an ended run; its exit status comes first."""
    exit_status = context.answer.get("exit_status") if context.answer else None
    if exit_status == 0:
        return read_result(context, run_id)
    ended = end_in_words(exit_status) if isinstance(exit_status, int) else None
    if ended is not None:
        raise CommandFailed(
            f"{script} {ended}",
            hint="The end of its log, among the job's events, shows how far it came.",
            script=script,
            exit_status=exit_status,
        )
    try:
        result = read_result(context, run_id)
    except EvidenceMissing:
        result = {}
    raise script_error(script, result, exit_status)


def read_result(context: StepContext, run_id: str) -> dict[str, Json]:
    """What the run left in result.json; EvidenceMissing when that is nothing."""
    path = f"{RUNS_DIRECTORY}/{run_id}/result.json"
    try:
        content = context.world.shell.read_file(context.endpoint, path, limit=LARGEST_DOCUMENT)
    except NotFound as error:
        raise EvidenceMissing(f"the run left no {path}", run_id=run_id) from error
    return parsed_document(content, path)


def texts(value: Json) -> list[str]:
    """A list in a script's result, such as its warnings, as texts; empty when it is none. Of very
    many the first ones are given, and how many more there are.
    """
    if not isinstance(value, list):
        return []
    more = [f"and {len(value) - _MOST_TEXTS} more"] if len(value) > _MOST_TEXTS else []
    return [*(str(item) for item in value[:_MOST_TEXTS]), *more]


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
