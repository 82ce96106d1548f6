"""Take a server out of management; one of our own is destroyed. Its backups stay in the bucket."""

from __future__ import annotations

from datetime import timedelta

from managed.domain.errors import NotFound
from managed.domain.jobs import JobKind
from managed.domain.servers import ServerStatus
from managed.domain.snapshots import account_of
from managed.workflows.parts.rescue_boot import end_session_record
from managed.workflows.steps import Done, Outcome, Step, StepContext, Workflow


def close_gateway(context: StepContext) -> Outcome:
    """It gets no more backups in; what is there stays, and so does the password that opens it."""
    context.world.gateway.dismiss(account_of(context.job.server_id))
    return Done()


def destroy(context: StepContext) -> Outcome:
    """Remove machine and disk, if they are ours. A server that is deleted already (by the undo of
    a create job that had to make way, say) leaves nothing to do.
    """
    try:
        server = context.server
    except NotFound:
        return Done({"destroyed": False})
    if server.node_id is not None:
        context.world.hypervisor(server).destroy_server(server.server_id)
        end_session_record(context)
    return Done({"destroyed": server.node_id is not None})


def forget(context: StepContext) -> Outcome:
    context.world.servers.set_status(context.job.server_id, ServerStatus.DELETED)
    return Done()


WORKFLOW = Workflow(
    kind=JobKind.DELETE,
    version=1,
    time_limit=timedelta(minutes=30),
    steps=(
        Step("close_gateway", close_gateway),
        Step("destroy", destroy, interruptible=False),
        Step("forget", forget, interruptible=False),
    ),
)
