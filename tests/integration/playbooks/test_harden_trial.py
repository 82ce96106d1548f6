"""What could lock everybody out is on trial, whatever becomes of the worker or of the server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from managed.domain.errors import Json, LoginRefused, PlaybookFailed, ServerUnreachable
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.drivers.ssh.keys import public_key_of
from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell, start_cell, stop_cell
from managed.workflows.harden import take_back
from managed.workflows.steps import StepContext
from tests.support.cells import StartCell
from tests.support.playbook_runs import (
    PLAYBOOKS,
    TRIAL,
    Harden,
    PutOnTrial,
    Remote,
    Run,
    ways_in,
)
from tests.support.runtime import short_directory
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]

SSHD_SETTINGS = "etc/ssh/sshd_config.d/00-managed.conf"


class WorkerKilledError(Exception):
    pass


def test_what_a_killed_worker_wrote_is_in_force_after_the_next_one(
    start_test_cell: StartCell, harden: Harden, remote: Remote
) -> None:
    """Whether the first one died before the daemon was reloaded or after."""
    cell = start_test_cell("taken-up-again")
    assert "password" in ways_in(cell, "root")
    harden_until_settings_are_written(cell)
    assert harden(cell, harden_firewall=False).facts["settings"] == "trial"
    assert ways_in(cell, "root") == "publickey"

    remote(cell, f"{TRIAL} end")
    remote(cell, f"cp /etc/managed/trial/sshd.conf /{SSHD_SETTINGS}")
    assert "password" in ways_in(cell, "root")
    assert remote(cell, f"{TRIAL} begin 900") == "trial\n"
    assert ways_in(cell, "root") == "publickey"


def test_unconfirmed_settings_go_away_by_themselves(
    start_test_cell: StartCell, harden: Harden, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("rollback", isolated=True)

    assert harden(cell, harden_trial_seconds=8).facts["settings"] == "trial"
    assert "inet managed" in remote(cell, "nft list tables")
    wait_until(
        lambda: "inet managed" not in remote(cell, "nft list tables"),
        timeout=60,
        what="the rules are taken back",
    )
    wait_until(
        lambda: "password" in ways_in(cell, "root"), timeout=20, what="sshd is as it was before"
    )

    with pytest.raises(PlaybookFailed, match="taken back"):
        run("confirm_hardening", cell)
    assert not (cell.root_dir / SSHD_SETTINGS).exists()


def test_after_a_boot_only_what_is_confirmed_is_in_force(
    start_test_cell: StartCell, put_on_trial: PutOnTrial, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("booted", isolated=True)

    put_on_trial(cell)
    boot_again(cell)
    assert "inet managed" not in remote(cell, "nft list tables")
    assert "password" in ways_in(cell, "root")

    put_on_trial(cell)
    run("confirm_hardening", cell)
    rules = cell.root_dir / "etc/managed/trial/firewall.nft"
    rules.write_text(f"{rules.read_text()}add rule inet managed input tcp dport 9090 accept\n")
    assert remote(cell, f"{TRIAL} begin 900") == "trial\n"
    assert "9090" in remote(cell, "nft list table inet managed")
    boot_again(cell)
    rules = remote(cell, "nft list table inet managed")
    assert "22" in rules
    assert "9090" not in rules
    assert ways_in(cell, "root") == "publickey"


def test_rules_that_somebody_removed_meanwhile_are_not_called_confirmed(
    start_test_cell: StartCell, put_on_trial: PutOnTrial, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("flushed", isolated=True)
    put_on_trial(cell)
    remote(cell, "nft delete table inet managed")

    with pytest.raises(PlaybookFailed, match="taken back"):
        run("confirm_hardening", cell)

    assert remote(cell, "ls /etc/managed/confirmed") == ""


def test_what_is_on_trial_is_taken_back_over_a_connection_that_is_open(
    start_test_cell: StartCell, put_on_trial: PutOnTrial, remote: Remote
) -> None:
    cell = start_test_cell("taken-back")
    shell = SshShell()
    before = remote(cell, "sshd -T")
    shell.boot_id(cell.endpoint)
    put_on_trial(cell, firewall=False)
    assert remote(cell, "sshd -T") != before
    lock_everybody_out(cell, shell)

    for _ in range(2):
        take_back(context_of(cell, shell))

    assert remote(cell, "sshd -T") == before


def test_who_is_locked_out_gets_in_when_the_time_is_over(
    start_test_cell: StartCell, put_on_trial: PutOnTrial, remote: Remote
) -> None:
    """Nobody holds a connection any more."""
    cell = start_test_cell("locked-out")
    shell = SshShell()
    before = remote(cell, "sshd -T")
    put_on_trial(cell, 10, firewall=False)
    lock_everybody_out(cell, shell)

    wait_until(lambda: lets_in(cell, shell), timeout=90, what="the clock lets us in again")

    take_back(context_of(cell, SshShell()))
    assert remote(cell, "sshd -T") == before


def harden_until_settings_are_written(cell: Cell) -> None:
    """A worker that dies as soon as our settings are in their place."""

    def emit(_name: str, _data: Mapping[str, Json]) -> None:
        if (cell.root_dir / SSHD_SETTINGS).exists():
            raise WorkerKilledError

    with short_directory() as runtime, pytest.raises(WorkerKilledError):
        AnsiblePlaybooks(PLAYBOOKS, runtime).run(
            "harden", cell.endpoint,
            variables={
                "harden_firewall": False, "harden_our_key": public_key_of(cell.private_key)
            },
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
