"""Start, stop or reset a server. A stop asks the system first and pulls the plug only then."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from managed.domain.errors import EvidenceMissing, InvalidInput
from managed.domain.jobs import JobKind
from managed.domain.questions import PowerIs
from managed.domain.servers import PowerState
from managed.workflows.parts.rescue_boot import boot_normally
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

_SHUT_DOWN_SECONDS = 90


def act(context: StepContext) -> Outcome:
    action = context.job.parameters.get("action")
    server = context.server
    hypervisor = context.world.hypervisor(server)
    match action:
        case "start":
            hypervisor.start(server.server_id)
        case "reset":
            hypervisor.reset(server.server_id)
        case "stop":
            return _stop(context)
        case _:
            raise InvalidInput(f"{action!r} is no power action", hint="Use start, stop or reset.")
    return Done({"power": hypervisor.power_state(server.server_id).value})


def answer(context: StepContext) -> Outcome:
    """A started server is up when SSH answers; a stopped one has nothing to say."""
    if context.job.parameters.get("action") == "stop":
        return Done()
    return boot_normally(context)


def _stop(context: StepContext) -> Outcome:
    server = context.server
    hypervisor = context.world.hypervisor(server)
    if context.timed_out:
        hypervisor.power_off(server.server_id)
        return _stopped(context, ["it did not shut down by itself; power was cut"])
    if context.answer is not None:
        return _stopped(context)
    hypervisor.shut_down(server.server_id)
    return Wait(PowerIs(PowerState.STOPPED.value), context.scaled(_SHUT_DOWN_SECONDS))


def _stopped(context: StepContext, warnings: Sequence[str] = ()) -> Outcome:
    """Done, if that is what the node says now, whatever was said before."""
    server = context.server
    state = context.world.hypervisor(server).power_state(server.server_id)
    if state is not PowerState.STOPPED:
        raise EvidenceMissing(f"the server was to be stopped, but is {state}", power=state.value)
    return Done({"power": state.value}, warnings=warnings)


WORKFLOW = Workflow(
    kind=JobKind.POWER,
    version=1,
    time_limit=timedelta(minutes=30),
    steps=(Step("act", act), Step("answer", answer)),
)
