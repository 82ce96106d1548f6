"""Boot a server into the rescue image for support staff, and back again.

The session stays open after the job; the clock ends it when its time is over.
"""

from __future__ import annotations

from datetime import timedelta

from managed.domain.jobs import JobKind
from managed.domain.servers import PowerState, ServerStatus
from managed.workflows.parts.health import health_document
from managed.workflows.parts.rescue_boot import (
    boot_normally,
    boot_rescue,
    end_rescue,
    end_rescue_of_this_job,
    start_again,
)
from managed.workflows.steps import Done, Outcome, Step, StepContext, Workflow

_USUAL_HOURS = 4


def look(context: StepContext) -> Outcome:
    """Does the server run? One that is switched off may be meant to stay so."""
    server = context.server
    power = context.world.hypervisor(server).power_state(server.server_id)
    return Done({"ran": power is PowerState.RUNNING})


def boot(context: StepContext) -> Outcome:
    hours = context.job.parameters.get("hours") or _USUAL_HOURS
    return boot_rescue(context, lasts=timedelta(hours=float(str(hours))))


def back_to_normal(context: StepContext) -> None:
    """Undo: end what was begun, and start the server from its own disk if it ran. A session that
    was open before stays.
    """
    end_rescue_of_this_job(context)
    if context.result_of("look").get("ran"):
        start_again(context)


def leave(context: StepContext) -> Outcome:
    """Until it has booted nobody knows what people, or a restore that broke off, left there."""
    server, session = context.server, context.world.rescue_sessions.current(context.job.server_id)
    is_new = (session.status_before if session else server.status) is ServerStatus.NEW
    end_rescue(context, ServerStatus.NEW if is_new else ServerStatus.BROKEN)
    return Done({"is_new": is_new})


def boot_from_disk(context: StepContext) -> Outcome:
    """Only a boot that was seen makes the server active again."""
    outcome = boot_normally(context)
    if isinstance(outcome, Done) and not context.result_of("leave_rescue").get("is_new"):
        context.world.servers.set_status(context.job.server_id, ServerStatus.ACTIVE, context.now)
    return outcome


def check(context: StepContext) -> Outcome:
    return Done({"health": health_document(context)})


RESCUE = Workflow(
    kind=JobKind.RESCUE,
    version=1,
    time_limit=timedelta(minutes=30),
    steps=(Step("look", look), Step("boot_rescue", boot, undo=back_to_normal)),
)

UNRESCUE = Workflow(
    kind=JobKind.UNRESCUE,
    version=1,
    time_limit=timedelta(minutes=30),
    steps=(Step("leave_rescue", leave), Step("boot", boot_from_disk), Step("check", check)),
)
