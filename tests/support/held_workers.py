"""Workers whose jobs are held up in the midst of a step: `celery -A tests.support.held_workers`.

The one workflow that they know writes a line for every effect into the folder EFFECTS of their
environment. Its second step ends when the file "go" is there.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import managed.wiring.installation
from managed.domain.jobs import JobKind
from managed.workflows.steps import Done, Outcome, Step, StepContext, Workflow
from tests.support.waiting import wait_until
from workers.tasks import app

__all__ = ["app"]

KIND = JobKind.CHECK
STEPS = ("first", "held", "last")
_LONGEST_SECONDS = 120


def effects(folder: Path) -> list[tuple[str, str]]:
    """Every effect there was: job and step."""
    path = folder / "effects"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], line.split()[1]) for line in lines]


def _effect(context: StepContext, step: str) -> None:
    """One write to the end of a file is not torn by another process's."""
    descriptor = os.open(_folder() / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{context.job.job_id} {step}\n".encode())
    os.close(descriptor)


def _folder() -> Path:
    return Path(os.environ["EFFECTS"])


def _first(context: StepContext) -> Outcome:
    _effect(context, "first")
    return Done()


def _held(context: StepContext) -> Outcome:
    _effect(context, "held")
    wait_until((_folder() / "go").exists, timeout=_LONGEST_SECONDS, what="the test says go")
    return Done()


def _last(context: StepContext) -> Outcome:
    _effect(context, "last")
    return Done()


managed.wiring.installation.WORKFLOWS = {
    (KIND, 1): Workflow(
        KIND,
        1,
        (Step("first", _first), Step("held", _held), Step("last", _last)),
        timedelta(hours=1),
    )
}
