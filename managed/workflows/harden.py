"""Harden a server: sshd, kernel, firewall, login defaults; and prove that nobody is locked out.

What could lock us out, sshd's settings and the firewall, is on trial: the server takes it back by
its own clock, whatever becomes of us, until `confirm` stops that as the last step of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from managed.domain.errors import (
    CommandFailed,
    EvidenceMissing,
    GatewayUnavailable,
    Json,
    LoginRefused,
    NotFound,
    ServerUnreachable,
)
from managed.domain.health import health_report
from managed.domain.jobs import JobKind, RetryPolicy
from managed.workflows.parts.gateway_socket import GATEWAY_SOCKET
from managed.workflows.parts.health import (
    health_when_up,
    recorded_health,
    require_no_regression,
)
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow

# From where the clock is set in the middle of `apply` to where `confirm` stops it; enough also when
# a worker dies between the two.
_TRIAL_SECONDS: Final = 300
_PLAYBOOK_SECONDS: Final = 180
_LARGEST_SETTINGS: Final = 1024 * 1024
_TRIAL_PROGRAM: Final = "/usr/local/lib/managed/hardening-trial"
_CONFIRMED: Final = {
    "sshd": ("/etc/managed/confirmed/sshd.conf", 0o644),
    "firewall": ("/etc/managed/confirmed/firewall.nft", 0o600),
}

# The tries of an undo that does not get in outlast the trial, also an emulated server's long one.
_UNDO_SECONDS: Final = 30
_OUTLASTS_TRIAL: Final = RetryPolicy(
    patience=timedelta(minutes=50), stopping_patience=timedelta(minutes=50)
)

_WHAT_STAYS: Final = (
    "what locks nobody out is not taken back, as far as this job had set it: kernel settings "
    "(/etc/sysctl.d/90-managed.conf), core dumps off (/etc/security/limits.d/90-managed.conf), "
    "HOME_MODE in /etc/login.defs, modes of cron's files, the package nftables"
)


def check_before(context: StepContext) -> Outcome:
    """How the server is, and which settings of ours are confirmed there (None: nothing)."""
    health = health_when_up(context)
    if isinstance(health, Wait):
        return health
    confirmed: dict[str, Json] = {
        name: _content(context, path) for name, (path, _mode) in _CONFIRMED.items()
    }
    return Done({"health": health, "confirmed": confirmed})


def apply(context: StepContext) -> Outcome:
    """Run playbooks/harden.yml, which sets the clock before what could lock us out."""
    wanted, endpoint = context.job.parameters, context.endpoint
    report = context.world.playbooks.run(
        "harden",
        endpoint,
        variables={
            "harden_firewall": bool(wanted.get("firewall", True)),
            "harden_extra_ports": wanted.get("extra_ports") or [],
            "harden_our_key": context.world.public_key(endpoint.private_key),
            "harden_trial_seconds": int(context.scaled(_TRIAL_SECONDS).total_seconds()),
        },
        secrets={},
        emit=context.emit,
        register_child=context.register_child,
        timeout=context.scaled(_PLAYBOOK_SECONDS).total_seconds(),
    )
    return Done({"tasks_changed": report.changed, **report.facts})


def take_back(context: StepContext) -> Done:
    """Undo: what was confirmed before takes force again, or nothing of ours, as a new login proves.

    Who does not get in waits for the server's clock, which does the same.
    """
    before = context.result_of("check_before").get("confirmed")
    try:
        _restore_confirmed(context, before if isinstance(before, dict) else {})
        _require(context, "sh", "-c", f"test ! -e {_TRIAL_PROGRAM} || exec {_TRIAL_PROGRAM} end")
        context.world.shell.fresh_login(context.endpoint)
    except (LoginRefused, ServerUnreachable) as error:
        raise ServerUnreachable(
            f"{error.message}; its own clock takes the settings back",
            retry_after=context.scaled(_UNDO_SECONDS).total_seconds(),
        ) from error
    return Done(warnings=[_WHAT_STAYS])


def second_login(context: StepContext) -> Outcome:
    """A new connection with the pinned key, past the new sshd and firewall."""
    boot_id = context.world.shell.fresh_login(context.endpoint)
    if boot_id != recorded_health(context, "check_before").boot_id:
        raise EvidenceMissing("the second login reached another boot of the server")
    return Done({"boot_id": boot_id})


def check_forwarding(context: StepContext) -> Outcome:
    """Backups need a socket forwarded in reverse; hardening must have left that."""
    with context.world.tunnels.reverse_socket(
        context.endpoint, GATEWAY_SOCKET, context.world.gateway.socket()
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


def confirm(context: StepContext) -> Outcome:
    """Stop the clock over one more new connection: now the settings stay."""
    if context.result_of("apply").get("settings") != "trial":
        return Done({"settings": "confirmed"})
    report = context.world.playbooks.run(
        "confirm_hardening",
        context.endpoint,
        variables={},
        secrets={},
        emit=context.emit,
        register_child=context.register_child,
        timeout=context.scaled(_PLAYBOOK_SECONDS).total_seconds(),
    )
    return Done(dict(report.facts))


def _content(context: StepContext, path: str) -> str | None:
    try:
        content = context.world.shell.read_file(context.endpoint, path, limit=_LARGEST_SETTINGS)
    except NotFound:
        return None
    return content.decode(errors="replace")


def _restore_confirmed(context: StepContext, before: Mapping[str, Json]) -> None:
    """A `confirm` that was not heard of any more may have confirmed what is to be taken back."""
    for name, (path, mode) in _CONFIRMED.items():
        content = before.get(name)
        if isinstance(content, str):
            context.world.shell.write_file(context.endpoint, path, content.encode(), mode)
        else:
            _require(context, "rm", "-f", path)


def _require(context: StepContext, *command: str) -> None:
    ended = context.world.shell.run(context.endpoint, command)
    if ended.exit_status != 0:
        raise CommandFailed(
            f"{' '.join(command)} ended with status {ended.exit_status}: {ended.stderr[-500:]}",
            hint="Look at the server's sshd and firewall: they may not be as they were before.",
        )


WORKFLOW = Workflow(
    kind=JobKind.HARDEN,
    version=1,
    time_limit=timedelta(hours=2),
    steps=(
        Step("check_before", check_before),
        Step("apply", apply, undo=take_back, retry=_OUTLASTS_TRIAL),
        Step("second_login", second_login),
        Step("check_forwarding", check_forwarding),
        Step("check_after", check_after),
        Step("confirm", confirm),
    ),
)
