"""What can be asked for by a button, and why a button is not there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from api.dependencies import Services
from api.panel.route import Visitor
from api.requests import JobRequest, NewBackup, NewCheck, NewPower
from api.submission import job_refusal
from managed.domain.access import permission_for
from managed.domain.jobs import JobKind
from managed.domain.servers import Server


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
    found = []
    for action in Action:
        kind = JobKind(action.job.kind)
        if not visitor.may(permission_for(kind)):
            continue
        refusal = job_refusal(services, server, kind)
        found.append(Offer(action, refusal.message if refusal else ""))
    return found
