"""The trial of hardening as a server in memory does it: in force, confirmed, taken back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from managed.domain.connections import CommandResult
from managed.domain.errors import PlaybookFailed
from managed.drivers.fakes.playbooks import PlaybookCall
from managed.drivers.fakes.shell import FakeServer
from managed.ports import Clock, PlaybookReport

SSHD_SETTINGS = "/etc/ssh/sshd_config.d/00-managed.conf"
CONFIRMED_SETTINGS = "/etc/managed/confirmed/sshd.conf"
HARDENED = b"hardened\n"


class Lockout(Enum):
    """Whom a hardened server refuses: nobody, new connections, or also those held since before."""

    NOBODY = auto()
    NEW_LOGINS = auto()
    EVERYBODY = auto()


def is_hardened(server: FakeServer) -> bool:
    return server.files.get(SSHD_SETTINGS) == HARDENED


@dataclass
class FakeHardening:
    """What hardening-trial does, with sshd's settings standing for all; `ends_at` is its clock."""

    clock: Clock
    ends_at: datetime | None = None

    def harden(self, server: FakeServer, call: PlaybookCall) -> PlaybookReport:
        """harden.yml; what is confirmed and in force already is not tried again."""
        state = "confirmed"
        if not (is_hardened(server) and server.files.get(CONFIRMED_SETTINGS) == HARDENED):
            state = "trial"
            server.files[SSHD_SETTINGS] = HARDENED
            seconds = int(str(call.variables["harden_trial_seconds"]))
            self.ends_at = self.clock() + timedelta(seconds=seconds)
        return PlaybookReport(changed=1, failed_tasks=(), facts={"settings": state})

    def confirm(self, server: FakeServer) -> PlaybookReport:
        """confirm_hardening.yml."""
        if not is_hardened(server):
            raise PlaybookFailed("the settings were taken back before they were confirmed")
        self.ends_at = None
        server.files[CONFIRMED_SETTINGS] = HARDENED
        return PlaybookReport(changed=1, failed_tasks=(), facts={"settings": "confirmed"})

    def end(self, server: FakeServer) -> CommandResult:
        """What is confirmed is in force, or nothing."""
        self.ends_at = None
        server.files.pop(SSHD_SETTINGS, None)
        if CONFIRMED_SETTINGS in server.files:
            server.files[SSHD_SETTINGS] = server.files[CONFIRMED_SETTINGS]
        return CommandResult(0, "", "")

    def strike(self, server: FakeServer) -> None:
        """The clock takes back what nobody has confirmed in time."""
        if self.ends_at is not None and self.clock() >= self.ends_at:
            self.end(server)
