"""Hardened, and nobody locked out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from managed.domain.errors import LoginRefused, PlaybookFailed
from managed.drivers.ssh.shell import SshShell
from managed.workflows.harden import take_back_sshd
from managed.workflows.steps import StepContext
from tests.support.cells import StartCell
from tests.support.playbook_runs import Remote, Run, answers, serve_command
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]


_CUSTOMERS_FIREWALL = """
table ip filter {
  chain INPUT { type filter hook input priority 0; policy drop; tcp dport 1-65535 accept; }
}
"""


def test_hardening_twice_changes_nothing_and_backups_keep_their_socket(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("harden")
    remote(cell, "mkdir -p /etc/cron.daily; touch /etc/crontab /etc/cron.allow")
    remote(cell, "chmod 755 /etc/cron.daily; chmod 644 /etc/crontab /etc/cron.allow")

    first = run("harden", cell, harden_firewall=False)
    second = run("harden", cell, harden_firewall=False)

    assert first.changed > 0
    assert second.changed == 0
    assert first.facts["firewall"] == "off"
    assert first.facts["password_login"] == "no"
    effective = remote(cell, "sshd -T").splitlines()
    assert "passwordauthentication no" in effective
    assert "permitrootlogin without-password" in effective
    assert "allowstreamlocalforwarding yes" in effective
    assert not any("cbc" in line for line in effective if line.startswith("ciphers"))
    cron = remote(cell, "stat -c '%a %U %n' /etc/crontab /etc/cron.daily /etc/cron.allow")
    assert cron.splitlines() == [
        "600 root /etc/crontab",
        "700 root /etc/cron.daily",
        "644 root /etc/cron.allow",
    ]


def test_who_has_only_a_password_is_not_locked_out(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("password-only")
    remote(cell, "useradd -m -s /bin/bash kim && chpasswd", "kim:old but good\n")

    report = run("harden", cell, harden_firewall=False)
    strict = run("harden", cell, harden_firewall=False, harden_password_login="no")

    assert report.facts["password_login"] == "yes"
    assert strict.facts["password_login"] == "no"
    assert "passwordauthentication no" in remote(cell, "sshd -T").splitlines()


def test_a_configuration_that_sshd_refuses_leaves_everything_as_it_was(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("overruled")
    foreign = cell.root_dir / "etc/ssh/sshd_config.d/00-customer.conf"
    foreign.write_text("AllowStreamLocalForwarding no\n")

    with pytest.raises(PlaybookFailed, match="overrules ours"):
        run("harden", cell, harden_firewall=False)

    assert not (cell.root_dir / "etc/ssh/sshd_config.d/00-managed.conf").exists()
    assert remote(cell, "echo still here") == "still here\n"


def test_the_firewall_drops_all_but_what_is_in_use_and_survives_confirmation(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("firewall", isolated=True)
    remote(cell, serve_command("web", 8080))
    remote(cell, "nft add table ip customer")

    assert run("harden", cell).facts["firewall"] == "trial"
    assert run("confirm_firewall", cell).facts["firewall"] == "confirmed"
    again = run("harden", cell)
    assert again.changed == 0
    assert again.facts["firewall"] == "confirmed"
    assert "8080/tcp" in list(again.facts["open_ports"])  # type: ignore[arg-type]

    remote(cell, serve_command("late", 9090))
    assert answers(cell, 8080)
    assert not answers(cell, 9090), "a port that nobody used before is closed"
    assert "table ip customer" in remote(cell, "nft list tables"), "other tables are left alone"
    assert run("harden", cell, harden_extra_ports=["9090/tcp"]).facts["firewall"] == "trial"
    assert answers(cell, 9090)


def test_an_unconfirmed_firewall_goes_away_by_itself(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("rollback", isolated=True)

    assert run("harden", cell, harden_firewall_trial=20).facts["firewall"] == "trial"
    assert "inet managed" in remote(cell, "nft list tables")
    wait_until(
        lambda: "inet managed" not in remote(cell, "nft list tables"),
        timeout=60,
        what="the rules are taken back",
    )

    with pytest.raises(PlaybookFailed, match="taken back"):
        run("confirm_firewall", cell)


def test_a_firewall_of_the_customers_own_is_left_in_charge(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("own-firewall", isolated=True)
    remote(cell, "nft -f -", _CUSTOMERS_FIREWALL)

    report = run("harden", cell)

    assert report.facts["firewall"] == "foreign"
    assert report.facts["foreign_firewall"] == "ip filter"
    assert "inet managed" not in remote(cell, "nft list tables")


def test_what_sshd_was_told_is_taken_back_over_the_open_connection(
    start_test_cell: StartCell, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("taken-back")
    shell = SshShell()
    world = SimpleNamespace(shell=shell, endpoint=lambda _server_id: cell.endpoint)
    context = cast(
        StepContext,
        SimpleNamespace(
            world=world,
            endpoint=cell.endpoint,
            result_of=lambda _step: {"sshd_settings": None},
        ),
    )
    before = remote(cell, "sshd -T")
    shell.boot_id(cell.endpoint)
    run("harden", cell, harden_firewall=False)
    assert remote(cell, "sshd -T") != before
    locked = cell.root_dir / "etc/ssh/sshd_config.d/00-managed.conf"
    locked.write_text("AllowUsers nobody\n")
    shell.run(cell.endpoint, ("systemctl", "reload", "ssh.service"))
    with pytest.raises(LoginRefused):
        shell.fresh_login(cell.endpoint)

    for _ in range(2):
        take_back_sshd(context)

    assert remote(cell, "sshd -T") == before
    assert not locked.exists()
