"""Install the distribution's updates: health, update, reboot when needed, health again."""

from __future__ import annotations

from datetime import timedelta

from managed.domain.errors import (
    CommandFailed,
    EvidenceMissing,
    Json,
    ServerUnreachable,
    UnknownOutcome,
)
from managed.domain.health import health_report
from managed.domain.jobs import JobKind
from managed.domain.packages import patch_report
from managed.domain.questions import SshAnswers
from managed.domain.runs import RunRequest
from managed.workflows.parts.detached import ServerScript, detached
from managed.workflows.parts.health import (
    health_when_up,
    recorded_health,
    require_no_regression,
)
from managed.workflows.parts.rescue_boot import require_login
from managed.workflows.parts.run_records import forget_runs
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

# Somebody else's apt may hold the package lock for 15 minutes, and hundreds of updates take as
# long. The last stage begins early enough to end in time: whoever gives it up leaves a server that
# is not rebooted and not looked at.
_LAST_STAGE_SECONDS = 2700
_UPDATE_SECONDS = 3600
_REBOOT_SECONDS = 180


def check_before(context: StepContext) -> Outcome:
    """How the server is before anything is touched: what was broken already is not our doing."""
    health = health_when_up(context)
    if isinstance(health, Wait):
        return health
    return Done({"health": health})


def update(context: StepContext) -> Outcome:
    """The playbook starts the detached run; its result must prove what it has done."""
    script = ServerScript(
        name="apply_updates",
        given={
            "only_security": bool(context.job.parameters.get("only_security", False)),
            "time_limit": int(context.scaled(_LAST_STAGE_SECONDS).total_seconds()),
        },
        limit=context.scaled(_UPDATE_SECONDS),
        stoppable=False,
    )
    found = detached(context, "update", script, start_by_playbook)
    if isinstance(found, Wait):
        return found
    boot_id = context.answer.get("boot_id") if context.answer else ""
    return Done({**found, "boot_id": boot_id}, warnings=patch_report(found).warnings)


def start_by_playbook(context: StepContext, request: RunRequest) -> None:
    """playbooks/patch.yml delivers runner and script and starts the run; then it ends."""
    delivery = context.world.runs.delivery(request)
    context.world.playbooks.run(
        "patch",
        context.endpoint,
        variables={
            "patch_run_id": request.run_id,
            "patch_request": delivery.request,
            "patch_runner_path": delivery.runner_path,
            "patch_runner_source": delivery.runner_source,
        },
        secrets={},
        emit=context.emit,
        register_child=context.register_child,
        timeout=context.scaled(120).total_seconds(),
    )


def reboot(context: StepContext) -> Outcome:
    """Reboot if the updates ask for it, and wait for another boot than the one that they ran on."""
    updated = context.result_of("update")
    reasons = patch_report(updated).reboot_reasons
    if not reasons or context.job.parameters.get("reboot") == "never":
        warnings = [f"a reboot is needed: {reason}" for reason in reasons]
        return Done({"rebooted": False, "reasons": list[Json](reasons)}, warnings=warnings)
    old_boot_id = updated.get("boot_id")
    if not isinstance(old_boot_id, str) or not old_boot_id:
        raise EvidenceMissing("the update did not say on which boot it ran")
    present = _present_boot_id(context) if context.answer is None else None
    if context.timed_out and present == old_boot_id:
        raise UnknownOutcome("the server was asked to reboot and has not done so")
    if context.timed_out and present is None:
        raise CommandFailed(
            "the server has not come back from its reboot",
            hint="Look at its console, or boot it into rescue.",
        )
    if context.answer is not None:
        require_login(context)
        boot_id = context.answer.get("boot_id")
        if not boot_id or boot_id == old_boot_id:
            raise EvidenceMissing("the server answers, but not from a new boot")
        return Done({"rebooted": True, "reasons": list[Json](reasons), "boot_id": boot_id})
    if present == old_boot_id:
        _ask_for_reboot(context)
    return Wait(SshAnswers(not_boot_id=old_boot_id), context.scaled(_REBOOT_SECONDS))


def check_after(context: StepContext) -> Outcome:
    """Nothing may be worse than before; only then the patch is green."""
    before = recorded_health(context, "check_before")
    health = health_when_up(context, before)
    if isinstance(health, Wait):
        return health
    require_no_regression(before, health_report(health))
    return Done({"health": health})


def _present_boot_id(context: StepContext) -> str | None:
    """None while the server is down: a worker before us may have asked for the reboot."""
    try:
        return context.world.shell.boot_id(context.endpoint)
    except ServerUnreachable:
        return None


def _ask_for_reboot(context: StepContext) -> None:
    """The connection may break before the command's end is heard of; the boot id will tell."""
    try:
        context.world.shell.run(context.endpoint, ("systemctl", "reboot"), timeout=30)
    except ServerUnreachable:
        context.emit("connection_lost", {"while": "rebooting"})


WORKFLOW = Workflow(
    kind=JobKind.PATCH,
    version=1,
    time_limit=timedelta(hours=12),
    steps=(
        Step("check_before", check_before),
        Step("update", update, interruptible=False),
        Step("reboot", reboot, interruptible=False),
        Step("check_after", check_after),
        Step("forget_runs", forget_runs("update")),
    ),
)
