"""Hardened, and nobody locked out."""

from __future__ import annotations

from pathlib import Path

import pytest

from managed.domain.errors import PlaybookFailed
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.drivers.ssh.keys import new_key_pair, public_key_of
from managed.lab.cells import Cell
from tests.support.cells import StartCell
from tests.support.playbook_runs import (
    PLAYBOOKS,
    TRIAL,
    Harden,
    PutOnTrial,
    Remote,
    Run,
    answers,
    seen,
    serve_command,
    ways_in,
)
from tests.support.runtime import short_directory

SUPPORT = Path(__file__).parents[2] / "support" / "playbooks"

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]


def test_hardening_twice_changes_nothing_closes_what_nobody_uses_and_leaves_backups_their_way(
    start_test_cell: StartCell, harden: Harden, run: Run, remote: Remote
) -> None:
    cell = start_test_cell("harden", isolated=True)
    remote(cell, "mkdir -p /etc/cron.daily; touch /etc/crontab /etc/cron.allow")
    remote(cell, "chmod 755 /etc/cron.daily; chmod 644 /etc/crontab /etc/cron.allow")
    remote(cell, serve_command("web", 8080))
    remote(cell, "nft add table ip customer")

    first = harden(cell)
    assert first.changed > 0
    assert (first.facts["settings"], first.facts["firewall"]) == ("trial", "trial")
    assert first.facts["password_login"] == "no"
    assert run("confirm_hardening", cell).facts["settings"] == "confirmed"
    second = harden(cell)
    assert second.changed == 0
    assert (second.facts["settings"], second.facts["firewall"]) == ("confirmed", "confirmed")
    assert "8080/tcp" in list(second.facts["open_ports"])  # type: ignore[arg-type]

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

    remote(cell, serve_command("late", 9090))
    assert answers(cell, 8080)
    assert not answers(cell, 9090), "a port that nobody used before is closed"
    assert "table ip customer" in remote(cell, "nft list tables"), "other tables are left alone"
    assert harden(cell, harden_extra_ports=["9090/tcp"]).facts["firewall"] == "trial"
    assert answers(cell, 9090)


def test_who_has_only_a_password_is_not_locked_out(
    start_test_cell: StartCell, harden: Harden, remote: Remote
) -> None:
    """Others' keys do not help her."""
    cell = start_test_cell("password-only")
    remote(cell, "useradd -m -s /bin/bash kim && chpasswd", "kim:old but good\n")
    remote(cell, "cat >> /root/.ssh/authorized_keys", f"{new_key_pair().public_key} admin\n")

    report = harden(cell, harden_firewall=False)
    assert report.facts["firewall"] == "off"
    assert report.facts["password_login"] == "yes"
    assert report.facts["need_passwords"] == ["kim"]
    assert "password" in ways_in(cell, "kim")

    remote(cell, "install -d -o kim /home/kim/.ssh; cat > /home/kim/.ssh/authorized_keys",
           f"{new_key_pair().public_key} kim\n")  # fmt: skip
    assert need_passwords(cell, remote) == []


def test_roots_password_counts_where_root_may_use_it(
    start_test_cell: StartCell, harden: Harden, remote: Remote
) -> None:
    """The only key of root's is ours."""
    cell = start_test_cell("root-password")
    remote(cell, "chpasswd", "root:old but good\n")
    assert need_passwords(cell, remote) == []

    remote(cell, "echo PermitRootLogin yes > /etc/ssh/sshd_config.d/01-customer.conf")
    assert need_passwords(cell, remote) == ["root"]
    strict = harden(cell, harden_firewall=False, harden_password_login="no")
    assert strict.facts["need_passwords"] == ["root"]
    assert strict.facts["password_login"] == "no"
    assert "passwordauthentication no" in remote(cell, "sshd -T").splitlines()


def test_a_configuration_that_reads_no_drop_ins_reads_ours_alone(
    start_test_cell: StartCell, harden: Harden, remote: Remote
) -> None:
    cell = start_test_cell("no-drop-ins")
    remote(cell, "cat /etc/ssh/sshd_config.d/00-cell.conf > /etc/ssh/sshd_config")
    (cell.root_dir / "etc/ssh/sshd_config.d/50-unread.conf").write_text("MaxSessions 77\n")
    before = remote(cell, "sshd -T")

    harden(cell, harden_firewall=False)
    effective = remote(cell, "sshd -T").splitlines()
    remote(cell, f"{TRIAL} end")

    assert "passwordauthentication no" in effective
    assert "maxsessions 77" not in effective
    assert remote(cell, "sshd -T") == before


@pytest.mark.parametrize("hardened", [False, True], ids=["never-hardened", "hardened-before"])
def test_a_configuration_that_overrules_ours_leaves_everything_as_it_was(
    start_test_cell: StartCell,
    harden: Harden,
    put_on_trial: PutOnTrial,
    remote: Remote,
    hardened: bool,
) -> None:
    cell = start_test_cell(f"overruled-{hardened}".lower())
    if hardened:
        put_on_trial(cell, firewall=False)
        remote(cell, f"{TRIAL} keep")
    before = settings_of(cell)
    foreign = cell.root_dir / "etc/ssh/sshd_config.d/00-customer.conf"
    foreign.write_text("AllowStreamLocalForwarding no\n")

    with pytest.raises(PlaybookFailed, match="overrules ours"):
        harden(cell, harden_firewall=False, harden_tcp_forwarding="no")

    assert settings_of(cell) == before
    assert remote(cell, "echo still here") == "still here\n"


def test_kernel_settings_that_a_killed_worker_wrote_are_applied_and_nothing_else(
    start_test_cell: StartCell, remote: Remote
) -> None:
    """Docker switches forwarding on at run time, whatever files say."""
    cell = start_test_cell("kernel", isolated=True)
    written = (PLAYBOOKS / "roles/harden/files/sysctl.conf").read_text()
    (cell.root_dir / "etc/sysctl.d/90-managed.conf").write_text(written)
    customers = "net.ipv4.ip_forward = 0\nnet.ipv4.conf.all.send_redirects = 1\n"
    (cell.root_dir / "etc/sysctl.d/95-customer.conf").write_text(customers)
    settings = ("ip_forward", "conf.all.accept_redirects", "conf.all.send_redirects")
    for setting in settings:
        remote(cell, f"sysctl -w net.ipv4.{setting}=1")

    with short_directory() as runtime:
        AnsiblePlaybooks(SUPPORT, runtime).run(
            "kernel_settings", cell.endpoint, variables={}, secrets={},
            emit=lambda _name, _data: None, register_child=lambda _pid: None, timeout=300,
        )  # fmt: skip

    now = remote(cell, f"sysctl -n {' '.join(f'net.ipv4.{setting}' for setting in settings)}")
    assert now.split() == ["1", "0", "1"]


def settings_of(cell: Cell) -> str | None:
    path = cell.root_dir / "etc/ssh/sshd_config.d/00-managed.conf"
    return path.read_text() if path.exists() else None


def need_passwords(cell: Cell, remote: Remote) -> object:
    """Whom the role would lock out without passwords."""
    looked = seen(remote, cell, "look_at_server.py", public_key_of(cell.private_key))
    return looked["need_passwords"]
