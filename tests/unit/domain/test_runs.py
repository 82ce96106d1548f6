"""What a step does about its detached run: never a second one beside a first."""

from __future__ import annotations

import pytest

from managed.domain import runs
from managed.domain.runs import RunAction, RunState, end_in_words, run_action, run_id_for
from managed.server_scripts import _run_supervisor

ABSENT, RUNNING, FINISHED, UNKNOWN = RunState


@pytest.mark.parametrize(
    ("answered", "seen", "overdue", "action"),
    [
        # nobody has asked or could look: claim the id, or attach to who has
        (None, None, False, RunAction.START),
        (None, None, True, RunAction.START),
        # a look at what an earlier try may have started
        (None, ABSENT, False, RunAction.START),
        (None, RUNNING, False, RunAction.WAIT),
        (None, FINISHED, False, RunAction.WAIT),
        (None, UNKNOWN, False, RunAction.WAIT),
        # the wait for it ran out of time
        (None, ABSENT, True, RunAction.NEW_RUN),
        (None, RUNNING, True, RunAction.GIVE_UP),
        (None, FINISHED, True, RunAction.WAIT),
        (None, UNKNOWN, True, RunAction.WAIT),
        # the poller has told
        (FINISHED, None, False, RunAction.READ),
        (UNKNOWN, None, False, RunAction.NEW_RUN),
        (ABSENT, None, False, RunAction.NEW_RUN),
        (RUNNING, None, False, RunAction.START),
    ],
)
def test_what_follows_for_a_run(
    answered: RunState | None, seen: RunState | None, overdue: bool, action: RunAction
) -> None:
    assert run_action(answered, seen, overdue=overdue) is action


@pytest.mark.parametrize("overdue", [False, True])
def test_a_run_that_works_is_never_followed_by_another(overdue: bool) -> None:
    assert run_action(None, RUNNING, overdue=overdue) is not RunAction.NEW_RUN


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (124, "time limit"),
        (126, "could not be started"),
        (137, "memory"),
        (139, "signal 11"),
        (143, "told to stop"),
    ],
)
def test_an_end_that_is_not_the_scripts_own_is_said_in_words(status: int, words: str) -> None:
    said = end_in_words(status)
    assert said is not None
    assert words in said


@pytest.mark.parametrize("status", [0, 1, 2, 100, 128])
def test_a_scripts_own_status_is_its_own_to_explain(status: int) -> None:
    assert end_in_words(status) is None


def test_a_runs_id_names_job_step_and_number() -> None:
    assert run_id_for("job", "take", 2) == "job.take.2"


def test_the_runners_own_statuses_are_what_it_gives() -> None:
    given = (_run_supervisor.STATUS_TIME_LIMIT, _run_supervisor.STATUS_NOT_STARTED)
    assert given == (runs.STATUS_TIME_LIMIT, runs.STATUS_NOT_STARTED)
