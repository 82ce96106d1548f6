"""Look at a server and say whether it is well. Changes nothing; a boot gets time to end."""

from __future__ import annotations

from datetime import timedelta

from managed.domain.health import health_report
from managed.domain.jobs import JobKind, RetryPolicy
from managed.workflows.parts.health import health_when_up, require_health
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

# That a server does not answer is an answer too.
_SOON_TOLD = RetryPolicy(patience=timedelta(minutes=1))


def check(context: StepContext) -> Outcome:
    health = health_when_up(context)
    if isinstance(health, Wait):
        return health
    require_health(health_report(health))
    return Done({"health": health})


WORKFLOW = Workflow(
    kind=JobKind.CHECK,
    version=1,
    time_limit=timedelta(hours=1),
    steps=(Step("check", check, retry=_SOON_TOLD),),
)
