"""Carrying a plan out on a server."""

from __future__ import annotations

import time

from managed.domain.jobs import JobKind
from managed.wiring import open_installation
from tests.kill_matrix.boundaries import Moment
from tests.kill_matrix.evidence import problems_of
from tests.kill_matrix.plans import Carried, Kill, Killed, Plan
from tests.kill_matrix.servers import ManagedCell

# Other jobs of the installation die beside this one: it may meet one outage after the other.
_TO_A_BOUNDARY = 600.0


def carry_out(plan: Plan, server: ManagedCell) -> Carried:
    """Run the plan's job and kill as it says; then look what is true."""
    carried = Carried(plan, [Killed(kill) for kill in plan.kills])
    began = time.monotonic()
    try:
        server.prepare(plan.kind)
        if any(_is_during_work(kill) for kill in plan.kills):
            server.hold_packages()
        server.holder.arm(plan.kills[0].boundary)
        carried.job_id = server.submit(plan.kind)
        last = _kill_on_the_way(carried, server)
        job = server.wait_for_end(carried.job_id, _TO_A_BOUNDARY)
        if last is not None:
            last.note_next()
        killed = {each.kill.victim for each in carried.kills if each.processes}
        installation = open_installation(server.installation.settings)
        carried.problems = problems_of(server, installation, job, killed)
        installation.database.dispose()
    except Exception as error:
        carried.problems = [f"{type(error).__name__}: {error}"]
    finally:
        server.let_packages_go()
        server.holder.close()
    carried.seconds = time.monotonic() - began
    return carried


def _kill_on_the_way(carried: Carried, server: ManagedCell) -> Killed | None:
    """Stand, kill, arm the next boundary, let go. The last kill that there was."""
    holder, last = server.holder, None
    following = [*carried.kills[1:], None]
    for each, after in zip(carried.kills, following, strict=True):
        boundary = each.kill.boundary
        if not holder.wait(boundary, carried.job_id, _TO_A_BOUNDARY):
            return last
        if last is not None:
            last.note_next()
        each.processes = server.killer.kill(each.kill.victim, server.cell)
        each.killed_at = time.monotonic()
        if _is_during_work(each.kill):
            server.let_packages_go()
        if after is not None:
            holder.arm(after.kill.boundary)
        holder.release(boundary)
        last = each
    return last


def _is_during_work(kill: Kill) -> bool:
    """The server is at work then, so there is a run to kill."""
    return kill.boundary.moment is Moment.WHILE and kill.boundary.step == "update"


def clean_run(kind: JobKind, server: ManagedCell) -> set[str]:
    """One job that nobody disturbs: it has to be without fault. The steps of it that waited."""
    server.prepare(kind)
    job = server.wait_for_end(server.submit(kind))
    installation = open_installation(server.installation.settings)
    problems = problems_of(server, installation, job, ())
    installation.database.dispose()
    if problems:
        raise AssertionError(f"an undisturbed {kind} job: {problems}")
    events = server.events(job["id"])
    return {event["data"]["step"] for event in events if event["type"] == "step_waiting"}
