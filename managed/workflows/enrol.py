"""Take an existing server under management: log in with the pinned key, prepare, look at it."""

from __future__ import annotations

from datetime import timedelta

from managed.domain.health import health_problems, health_report
from managed.domain.jobs import JobKind, RetryPolicy
from managed.domain.servers import ServerStatus
from managed.workflows.parts.health import health_when_up
from managed.workflows.parts.prepare import prepare
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

# Who enrols a server waits for the answer.
_SOON_TOLD = RetryPolicy(patience=timedelta(seconds=6))


def connect(context: StepContext) -> Outcome:
    """One login proves address, pinned host key, and that our key was delivered."""
    return Done({"boot_id": context.world.shell.boot_id(context.endpoint)})


def check(context: StepContext) -> Outcome:
    """Record how the server is; what is wrong already is a warning, not a reason to refuse it."""
    health = health_when_up(context)
    if isinstance(health, Wait):
        return health
    context.world.servers.set_status(context.job.server_id, ServerStatus.ACTIVE, context.now)
    return Done({"health": health}, warnings=health_problems(health_report(health)))


WORKFLOW = Workflow(
    kind=JobKind.ENROL,
    version=1,
    time_limit=timedelta(minutes=30),
    steps=(
        Step("connect", connect, retry=_SOON_TOLD),
        Step("prepare", prepare),
        Step("check", check),
    ),
)
