"""The product's Celery worker, with workflows of the benches beside its own:
`celery -A bench.bench_worker worker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from celery import Celery

from managed.domain.errors import Json
from managed.domain.jobs import JobKind
from managed.storage.job_queue import NewJob
from managed.workflows.registry import WORKFLOWS
from managed.workflows.steps import Done, Outcome, Step, StepContext, Workflow
from workers.app import app as product_app

NOTHING: Final = 9001
MANY_EVENTS: Final = 9002
_KIND: Final = JobKind.CHECK
_HOUR: Final = timedelta(hours=1)


def nothing(context: StepContext) -> Outcome:
    return Done()


def emit_many(context: StepContext) -> Outcome:
    """As a playbook or restic does: one event per line of output."""
    for number in range(int(str(context.job.parameters["events"]))):
        context.emit("ansible", {"task": "Install packages", "host": "server", "number": number})
    return Done()


def bench_job(server_id: str, version: int, parameters: dict[str, Json] | None = None) -> NewJob:
    return NewJob(
        server_id=server_id,
        kind=_KIND,
        workflow_version=version,
        parameters=parameters or {},
        time_limit=_HOUR,
        requested_by="bench",
    )


def _register(version: int, steps: Sequence[Step]) -> None:
    WORKFLOWS[_KIND, version] = Workflow(_KIND, version, tuple(steps), _HOUR)


_register(NOTHING, [Step("nothing", nothing)])
_register(MANY_EVENTS, [Step("emit_many", emit_many)])
app: Celery = product_app
