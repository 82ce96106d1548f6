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
    """Remove machine and disk, if they are ours, and the server from the records. One step, so
    that no cancel finds a place between the two. A server that is deleted already (by the undo of
    a create job that had to make way, say) leaves nothing to do.
    """
    try:
        server = context.server
    except NotFound:
        return Done()
    is_ours = server.node_id is not None
    if is_ours:
        context.world.hypervisor(server).destroy_server(server.server_id)
        end_session_record(context)
    context.world.servers.set_status(server.server_id, ServerStatus.DELETED, context.now)
    return Done({"destroyed": is_ours})


WORKFLOW = Workflow(
    kind=JobKind.DELETE,
    version=1,
    time_limit=timedelta(minutes=30),
    steps=(
        Step("close_gateway", close_gateway),
        Step("destroy", destroy, interruptible=False),
    ),
)
