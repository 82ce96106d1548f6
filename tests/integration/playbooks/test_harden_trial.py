"""What could lock everybody out is on trial, whatever becomes of the worker or of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import NamedTuple, cast

import pytest

from managed.domain.errors import Json, LoginRefused, PlaybookFailed, ServerUnreachable
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.drivers.ssh.keys import public_key_of
from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell, start_cell, stop_cell
from managed.ports import PlaybookReport
from managed.workflows.harden import take_back
from managed.workflows.steps import StepContext
from tests.support.cells import StartCell
from tests.support.playbook_runs import (
    PLAYBOOKS,
    SSHD_SETTINGS,
    TRIAL,
    Harden,
    Remote,
    Run,
    ways_in,
)
from tests.support.runtime import short_directory
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]

AS_WRITTEN = "/srv/as-written"


class WorkerKilledError(Exception):
    pass


class InForce(NamedTuple):
    """What the running sshd offers root, and whether our firewall is up."""

    ways_in: str
    firewall: bool


NOTHING = InForce("publickey,password", firewall=False)
OURS = InForce("publickey", firewall=True)


@dataclass(frozen=True)
class TakenUp:
    """A cell whose worker died as soon as our settings were in their place, what the next one's
    play said, and how the server was then. What was to be tried lies in AS_WRITTEN, too.
    """

    cell: Cell
    report: PlaybookReport
    in_force: InForce
    clock: str


@pytest.fixture(scope="module")
def taken_up(start_test_cell: StartCell, harden: Harden, remote: Remote) -> TakenUp:
    cell = start_test_cell("trial", isolated=True)
    assert in_force(cell, remote) == NOTHING
    harden_until_settings_are_written(cell)
    report = harden(cell, harden_trial_seconds=1234)
    clock = remote(cell, "systemctl cat managed-hardening-trial.timer")
    remote(cell, f"cp -a /etc/managed/trial {AS_WRITTEN}")
    return TakenUp(cell, report, in_force(cell, remote), clock)


@pytest.fixture
def cell(taken_up: TakenUp, remote: Remote) -> Cell:
    """A cell that has our settings to try, of which nothing is in force and nothing confirmed."""
    remote(taken_up.cell, f"cp -a {AS_WRITTEN}/. /etc/managed/trial")
    remote(taken_up.cell, f"rm -f /etc/managed/confirmed/*; {TRIAL} end")
    assert in_force(taken_up.cell, remote) == NOTHING
    return taken_up.cell


def test_what_a_killed_worker_wrote_is_in_force_after_the_next_one(taken_up: TakenUp) -> None:
    assert taken_up.report.facts["settings"] == "trial"
    assert taken_up.in_force == OURS


def test_the_clock_is_set_to_the_seconds_that_were_asked_for(taken_up: TakenUp) -> None:
    assert "OnActiveSec=20min 34s" in taken_up.clock


def test_what_was_written_before_the_daemon_was_reloaded_is_in_force_after_the_next_begin(
    cell: Cell, remote: Remote
) -> None:
    remote(cell, f"cp /etc/managed/trial/sshd.conf /{SSHD_SETTINGS}")
    assert in_force(cell, remote) == NOTHING

    assert remote(cell, f"{TRIAL} begin 300") == "trial\n"

    assert in_force(cell, remote) == OURS


def test_settings_that_nobody_confirms_go_away_and_who_was_locked_out_gets_in(
    cell: Cell, run: Run, remote: Remote
) -> None:
    """By the server's own clock: nobody holds a connection any more."""
    shell = SshShell()
    before = remote(cell, "sshd -T")
    remote(cell, "echo AllowUsers nobody >> /etc/managed/trial/sshd.conf")
    assert "inet managed" in remote(cell, f"{TRIAL} begin 12 && nft list tables")
    assert not lets_in(cell, shell)

    settings = cell.root_dir / SSHD_SETTINGS
    wait_until(lambda: not settings.exists(), timeout=60, what="the clock strikes")
    wait_until(lambda: lets_in(cell, shell), timeout=20, what="sshd lets us in again")
    assert in_force(cell, remote) == NOTHING
    assert remote(cell, "sshd -T") == before

    with pytest.raises(PlaybookFailed, match="taken back"):
        run("confirm_hardening", cell)
    assert not settings.exists()
    take_back(context_of(cell, SshShell()))
    assert remote(cell, "sshd -T") == before


def test_after_a_boot_only_what_is_confirmed_is_in_force(cell: Cell, remote: Remote) -> None:
    remote(cell, f"{TRIAL} begin 300")
    assert in_force(cell, remote) == OURS
    boot_again(cell)
    assert in_force(cell, remote) == NOTHING

    remote(cell, f"{TRIAL} begin 300 && {TRIAL} keep")
    remote(cell, "sed -i 's/tcp dport { /&9090, /' /etc/managed/trial/firewall.nft")
    assert remote(cell, f"{TRIAL} begin 300") == "trial\n"
    assert "9090" in remote(cell, "nft list table inet managed")
    boot_again(cell)
    assert in_force(cell, remote) == OURS
    rules = remote(cell, "nft list table inet managed")
    assert "22" in rules
    assert "9090" not in rules


def test_rules_that_somebody_removed_meanwhile_are_not_called_confirmed(
    cell: Cell, remote: Remote
) -> None:
    remote(cell, f"{TRIAL} begin 300")
    remote(cell, "nft delete table inet managed")

    kept = SshShell().run(cell.endpoint, (TRIAL, "keep"))

    assert kept.exit_status != 0
    assert "taken back" in kept.stderr
    assert remote(cell, "ls /etc/managed/confirmed") == ""


def test_what_is_on_trial_is_taken_back_over_a_connection_that_is_open(
    cell: Cell, remote: Remote
) -> None:
    shell = SshShell()
    before = remote(cell, "sshd -T")
    shell.boot_id(cell.endpoint)
    remote(cell, f"{TRIAL} begin 300")
    assert remote(cell, "sshd -T") != before
    lock_everybody_out(cell, shell)

    for _ in range(2):
        take_back(context_of(cell, shell))

    assert remote(cell, "sshd -T") == before


def in_force(cell: Cell, remote: Remote) -> InForce:
    return InForce(
        ways_in(cell, "root"), firewall="inet managed" in remote(cell, "nft list tables")
    )


def harden_until_settings_are_written(cell: Cell) -> None:
    """A worker that dies as soon as our settings are in their place."""

    def emit(_name: str, _data: Mapping[str, Json]) -> None:
        if (cell.root_dir / SSHD_SETTINGS).exists():
            raise WorkerKilledError

    with short_directory() as runtime, pytest.raises(WorkerKilledError):
        AnsiblePlaybooks(PLAYBOOKS, runtime).run(
            "harden", cell.endpoint,
            variables={"harden_our_key": public_key_of(cell.private_key)},
            secrets={}, emit=emit, register_child=lambda _pid: None, timeout=300,
        )  # fmt: skip


def boot_again(cell: Cell) -> None:
    stop_cell(cell)
    state = cell.directory.parents[1]
    start_cell(state, cell.base_root, cell.name, isolated=cell.network.isolated)


def lock_everybody_out(cell: Cell, shell: SshShell) -> None:
    (cell.root_dir / SSHD_SETTINGS).write_text("AllowUsers nobody\n")
    shell.run(cell.endpoint, ("systemctl", "reload", "ssh.service"))
    wait_until(lambda: not lets_in(cell, shell), timeout=20, what="sshd refuses everybody")


def lets_in(cell: Cell, shell: SshShell) -> bool:
    try:
        shell.fresh_login(cell.endpoint)
    except (LoginRefused, ServerUnreachable):
        return False
    return True


def context_of(cell: Cell, shell: SshShell) -> StepContext:
    never: dict[str, Json] = {"confirmed": {"sshd": None, "firewall": None}}
    return cast(
        StepContext,
        SimpleNamespace(
            world=SimpleNamespace(shell=shell),
            endpoint=cell.endpoint,
            result_of=lambda _step: never,
            scaled=lambda seconds: timedelta(seconds=seconds),
        ),
    )
