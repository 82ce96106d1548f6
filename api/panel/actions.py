"""What can be asked for by a button, and why a button is not there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from api.dependencies import Services
from api.panel.route import Visitor
from api.requests import JobRequest, NewBackup, NewCheck, NewPower
from managed.domain.access import permission_for
from managed.domain.customers import plan_refusal
from managed.domain.jobs import JobKind
from managed.domain.servers import Server
from managed.domain.submissions import submission_refusal


class Action(StrEnum):
    BACKUP = "backup"
    CHECK = "check"
    RESET = "reset"

    @property
    def job(self) -> JobRequest:
        """What the API would be asked for."""
        match self:
            case Action.BACKUP:
                return NewBackup(kind="backup", run_key=None)
            case Action.CHECK:
                return NewCheck(kind="check", run_key=None)
            case Action.RESET:
                return NewPower(kind="power", action="reset", run_key=None)

    @property
    def button(self) -> str:
        return _TEXTS[self][0]

    @property
    def consequence(self) -> str:
        """What happens when it is confirmed."""
        return _TEXTS[self][1]

    @property
    def is_harsh(self) -> bool:
        """May it cost what runs there something? Then it needs a reason."""
        return self is Action.RESET


_TEXTS: Final = {
    Action.BACKUP: (
        "Back up",
        "A backup is taken now and verified. The server goes on working meanwhile.",
    ),
    Action.CHECK: (
        "Check health",
        "The server's health is looked at. Nothing is changed.",
    ),
    Action.RESET: (
        "Reboot",
        "The server is reset as by its reset button: programs get no time to end, and what they"
        " have not written to the disk is lost. Then it boots, and the job waits for SSH.",
    ),
}


@dataclass(frozen=True)
class Offer:
    """`refusal` says why it cannot be had now; empty when it can."""

    action: Action
    refusal: str


def offers(services: Services, visitor: Visitor, server: Server) -> list[Offer]:
    """What the visitor may ask for on this server."""
    plan = services.customers.plan_of(server)
    session = services.sessions.current(server.server_id)
    found = []
    for action in Action:
        kind = JobKind(action.job.kind)
        if not visitor.may(permission_for(kind)):
            continue
        refusal = plan_refusal(server, plan, kind) or submission_refusal(server, kind, session)
        found.append(Offer(action, refusal.message if refusal else ""))
    return found
