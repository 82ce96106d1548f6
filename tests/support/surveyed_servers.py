"""Real cells on a managed plan whose patch window is open."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from managed.domain.connections import Endpoint
from managed.domain.customers import Plan, PlanKind
from managed.domain.jobs import JobKind
from managed.domain.secrets import SecretPurpose
from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.domain.surveys import Survey
from managed.domain.windows import Opening, Window, WindowOwner, open_now
from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell
from managed.storage.database import writing
from managed.wiring import Installation, utc_now


@dataclass(frozen=True)
class OpenWindow:
    """A plan with a window that has been open for a minute."""

    installation: Installation
    plan: Plan
    opening: Opening

    def add(self, cell: Cell) -> str:
        """Bring the cell under management, on the plan; returns the server's id."""
        return self.add_server(cell.name, cell.endpoint)

    def add_server(self, name: str, endpoint: Endpoint, node_id: str | None = None) -> str:
        """The same for whatever answers there."""
        server = Server(
            server_id=str(uuid.uuid4()),
            name=name,
            origin=ServerOrigin.ENROLLED,
            status=ServerStatus.ACTIVE,
            address=endpoint.address,
            ssh_port=endpoint.port,
            ssh_user=endpoint.user,
            host_key=endpoint.host_key,
            operating_system="debian-12",
            node_id=node_id,
        )
        # Before the window opened: who came later has missed nothing.
        since = self.opening.starts_at - timedelta(hours=1)
        with writing(self.installation.database) as connection:
            self.installation.inventory.add(connection, server, since)
            self.installation.customers.place(connection, server, None, self.plan.plan_id, since)
        self.installation.vault.keep(
            server.server_id, SecretPurpose.LOGIN_KEY, endpoint.private_key
        )
        return server.server_id

    def survey(self, server_id: str) -> Survey | None:
        return self.installation.surveys.last(server_id, JobKind.PATCH)


def open_patch_window(installation: Installation, *, only_security: bool = False) -> OpenWindow:
    opened_at = (utc_now() - timedelta(minutes=1)).replace(microsecond=0)
    plan = Plan(str(uuid.uuid4()), f"plan-{uuid.uuid4().hex[:8]}", PlanKind.MANAGED, only_security)
    window = Window(
        window_id=str(uuid.uuid4()),
        owner=WindowOwner.PLAN,
        owner_id=plan.plan_id,
        job_kind=JobKind.PATCH,
        rule=_daily_at(opened_at),
        zone="UTC",
        minutes=60,
        starts_on=(opened_at - timedelta(days=1)).date(),
        created_at=opened_at - timedelta(hours=2),
    )
    with writing(installation.database) as connection:
        installation.customers.add_plan(connection, plan, window.created_at)
        installation.windows.add(connection, window)
    opening = open_now(window, utc_now())
    assert opening is not None
    return OpenWindow(installation, plan, opening)


def on_cell(cell: Cell, command: str) -> str:
    """What a shell command on the cell prints; AssertionError when it fails."""
    ended = SshShell().run(cell.endpoint, ("sh", "-c", command), timeout=120)
    assert ended.exit_status == 0, ended.stderr + ended.stdout
    return ended.stdout


def _daily_at(moment: datetime) -> str:
    return f"FREQ=DAILY;BYHOUR={moment.hour};BYMINUTE={moment.minute};BYSECOND={moment.second}"
