"""Harden a server: sshd, kernel, firewall, login defaults; and prove that nobody is locked out.

The firewall comes with a rollback on the server that only a second login calls off. What sshd was
told is taken back by this job, over the connection that was open before.
"""

from __future__ import annotations

from datetime import timedelta

from managed.domain.errors import CommandFailed, EvidenceMissing, GatewayUnavailable, NotFound
from managed.domain.health import health_report
from managed.domain.jobs import JobKind, RetryPolicy
from managed.workflows.parts.gateway_socket import GATEWAY_SOCKET
from managed.workflows.parts.health import (
    health_when_up,
    recorded_health,
    require_no_regression,
)
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

_TRIAL_SECONDS = 120
_PLAYBOOK_SECONDS = 180
_SSHD_SETTINGS = "/etc/ssh/sshd_config.d/00-managed.conf"
_LARGEST_SETTINGS = 64 * 1024

# Also for the undo: where the firewall keeps us out, its tries outlast the trial.
_OUTLASTS_TRIAL = RetryPolicy(attempts=8, first_delay=timedelta(seconds=6))


def check_before(context: StepContext) -> Outcome:
    """How the server is, and what we have told its sshd before (None: nothing)."""
    health = health_when_up(context)
    if isinstance(health, Wait):
        return health
    return Done({"health": health, "sshd_settings": _sshd_settings(context)})


def apply(context: StepContext) -> Outcome:
    """Run playbooks/harden.yml with the rollback armed."""
    wanted = context.job.parameters
    report = context.world.playbooks.run(
        "harden",
        context.endpoint,
        variables={
            "harden_firewall": bool(wanted.get("firewall", True)),
            "harden_extra_ports": wanted.get("extra_ports") or [],
            "harden_firewall_trial": int(context.scaled(_TRIAL_SECONDS).total_seconds()),
        },
        secrets={},
        emit=context.emit,
        register_child=context.register_child,
        timeout=context.scaled(_PLAYBOOK_SECONDS).total_seconds(),
    )
    return Done({"tasks_changed": report.changed, **report.facts})


def take_back_sshd(context: StepContext) -> None:
    """Undo: sshd is told what it was told before. The running sessions outlive its reload."""
    shell, before = context.world.shell, context.result_of("check_before").get("sshd_settings")
    if isinstance(before, str):
        shell.write_file(context.endpoint, _SSHD_SETTINGS, before.encode(), 0o644)
    else:
        _require(context, "rm", "-f", _SSHD_SETTINGS)
    _require(context, "/usr/sbin/sshd", "-t")
    _require(context, "systemctl", "reload", "ssh.service")


def second_login(context: StepContext) -> Outcome:
    """A new connection with the pinned key, past the new sshd and firewall."""
    boot_id = context.world.shell.fresh_login(context.endpoint)
    if boot_id != recorded_health(context, "check_before").boot_id:
        raise EvidenceMissing("the second login reached another boot of the server")
    return Done({"boot_id": boot_id})


def confirm(context: StepContext) -> Outcome:
    """Call the rollback off over one more new connection: the firewall stays."""
    state = context.result_of("apply").get("firewall")
    if state != "trial":
        return Done({"firewall": state})
    report = context.world.playbooks.run(
        "confirm_firewall",
        context.endpoint,
        variables={},
        secrets={},
        emit=context.emit,
        register_child=context.register_child,
        timeout=context.scaled(_PLAYBOOK_SECONDS).total_seconds(),
    )
    return Done(dict(report.facts))


def check_forwarding(context: StepContext) -> Outcome:
    """Backups need a socket forwarded in reverse; hardening must have left that."""
    world = context.world
    with world.tunnels.reverse_socket(
        context.endpoint, GATEWAY_SOCKET, world.gateway.socket()
    ) as tunnel:
        if not tunnel.is_open:
            raise GatewayUnavailable("the tunnel that backups need does not stay open")
    return Done({"reverse_socket": "forwarded"})


def check_after(context: StepContext) -> Outcome:
    before = recorded_health(context, "check_before")
    health = health_when_up(context, before)
    if isinstance(health, Wait):
        return health
    require_no_regression(before, health_report(health))
    return Done({"health": health})


def _sshd_settings(context: StepContext) -> str | None:
    try:
        content = context.world.shell.read_file(
            context.endpoint, _SSHD_SETTINGS, limit=_LARGEST_SETTINGS
        )
    except NotFound:
        return None
    return content.decode(errors="replace")


def _require(context: StepContext, *command: str) -> None:
    ended = context.world.shell.run(context.endpoint, command)
    if ended.exit_status != 0:
        raise CommandFailed(
            f"{' '.join(command)} ended with status {ended.exit_status}: {ended.stderr[-500:]}",
            hint="Look at the server's sshd: it may not be as it was before.",
        )


WORKFLOW = Workflow(
    kind=JobKind.HARDEN,
    version=1,
    time_limit=timedelta(hours=2),
    steps=(
        Step("check_before", check_before),
        Step("apply", apply, undo=take_back_sshd, retry=_OUTLASTS_TRIAL),
        Step("second_login", second_login),
        Step("confirm", confirm),
        Step("check_forwarding", check_forwarding),
        Step("check_after", check_after),
    ),
)
