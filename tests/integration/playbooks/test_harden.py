"""Hardened, and nobody locked out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from managed.domain.errors import PlaybookFailed
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.drivers.ssh.keys import new_key_pair, public_key_of
from managed.lab.cells import Cell
from managed.ports import PlaybookReport
from tests.support.cells import StartCell
from tests.support.playbook_runs import (
    HARDEN_FILES,
    SSHD_SETTINGS,
    TRIAL,
    Harden,
    Remote,
    Run,
    answers,
    look,
    serve_command,
    ways_in,
)
from tests.support.runtime import short_directory

SUPPORT = Path(__file__).parents[2] / "support" / "playbooks"

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Hardened:
    """A cell that was hardened, confirmed and hardened again, and what the plays said."""

    cell: Cell
    first: PlaybookReport
    confirmed: PlaybookReport
    second: PlaybookReport


@pytest.fixture(scope="module")
def hardened(start_test_cell: StartCell, harden: Harden, run: Run, remote: Remote) -> Hardened:
    """A server with a web server, a table of its own in the firewall, and a password of root's."""
    cell = start_test_cell("hardened", isolated=True)
    remote(cell, "mkdir -p /etc/cron.daily; touch /etc/crontab /etc/cron.allow")
    remote(cell, "chmod 755 /etc/cron.daily; chmod 644 /etc/crontab /etc/cron.allow")
    remote(cell, f"nft add table ip customer && {serve_command('web', 8080)}")
    remote(cell, "chpasswd", "root:old but good\n")
    return Hardened(
        cell,
        first=harden(cell, harden_extra_ports=["9090/tcp"]),
        confirmed=run("confirm_hardening", cell),
        second=harden(cell, harden_extra_ports=["9090/tcp"]),
    )


def test_hardening_twice_changes_nothing(hardened: Hardened) -> None:
    assert hardened.first.changed > 0
    assert hardened.second.changed == 0
    for fact in ("settings", "firewall"):
        assert hardened.first.facts[fact] == "trial"
        assert hardened.second.facts[fact] == "confirmed"
    assert hardened.confirmed.facts["settings"] == "confirmed"


def test_passwords_and_weak_ciphers_go_and_backups_keep_their_socket(
    hardened: Hardened, remote: Remote
) -> None:
    assert hardened.first.facts["password_login"] == "no"
    assert hardened.first.facts["need_passwords"] == [], "sshd lets root in by no password"
    assert ways_in(hardened.cell, "root") == "publickey"
    effective = remote(hardened.cell, "sshd -T").splitlines()
    assert "passwordauthentication no" in effective
    assert "permitrootlogin without-password" in effective
    assert "allowstreamlocalforwarding yes" in effective
    assert not any("cbc" in line for line in effective if line.startswith("ciphers"))


def test_only_root_reads_crons_files(hardened: Hardened, remote: Remote) -> None:
    cron = remote(hardened.cell, "stat -c '%a %U %n' /etc/crontab /etc/cron.daily /etc/cron.allow")
    assert cron.splitlines() == [
        "600 root /etc/crontab",
        "700 root /etc/cron.daily",
        "644 root /etc/cron.allow",
    ]


def test_the_firewall_drops_all_but_what_is_in_use_or_wanted(
    hardened: Hardened, remote: Remote
) -> None:
    """And survives its confirmation."""
    cell = hardened.cell
    for port in (9090, 9191):
        remote(cell, serve_command(f"late-{port}", port))

    open_ports = hardened.second.facts["open_ports"]
    assert isinstance(open_ports, list)
    assert {"8080/tcp", "9090/tcp"} <= set(map(str, open_ports))
    assert answers(cell, 8080)
    assert answers(cell, 9090), "a port that was asked for is open"
    assert not answers(cell, 9191), "a port that nobody used before is closed"
    assert "table ip customer" in remote(cell, "nft list tables"), "other tables are left alone"


def test_who_has_only_a_password_is_not_locked_out(
    start_test_cell: StartCell, harden: Harden, remote: Remote
) -> None:
    """Others' keys do not help her."""
    cell = start_test_cell("password-only")
    remote(cell, "useradd -m -s /bin/bash kim && chpasswd", "kim:old but good\n")
    remote(cell, "cat >> /root/.ssh/authorized_keys", f"{new_key_pair().public_key} admin\n")

    report = harden(cell, harden_firewall=False)
    assert report.facts["password_login"] == "yes"
    assert report.facts["need_passwords"] == ["kim"]
    assert report.facts["firewall"] == "off"
    assert "password" in ways_in(cell, "kim")

    remote(cell, "install -d -o kim /home/kim/.ssh; cat > /home/kim/.ssh/authorized_keys",
           f"{new_key_pair().public_key} kim\n")  # fmt: skip
    assert who_needs_passwords(cell, remote) == []


def test_roots_password_counts_where_root_may_use_it(
    start_test_cell: StartCell, remote: Remote
) -> None:
    """The only key of root's is ours."""
    cell = start_test_cell("root-password")
    remote(cell, "chpasswd", "root:old but good\n")
    assert who_needs_passwords(cell, remote) == []

    remote(cell, "echo PermitRootLogin yes > /etc/ssh/sshd_config.d/01-customer.conf")
    assert who_needs_passwords(cell, remote) == ["root"]


@dataclass(frozen=True)
class WithoutDropIns:
    """A cell whose sshd_config reads no drop-ins, as its sshd was before it was hardened so that
    nobody logs in by a password any more, and after.
    """

    cell: Cell
    before: str
    report: PlaybookReport
    after: str


@pytest.fixture(scope="module")
def without_drop_ins(start_test_cell: StartCell, harden: Harden, remote: Remote) -> WithoutDropIns:
    """Kim has nothing but a password."""
    cell = start_test_cell("no-drop-ins")
    remote(cell, "useradd -m -s /bin/bash kim && chpasswd", "kim:old but good\n")
    remote(cell, "cat /etc/ssh/sshd_config.d/00-cell.conf > /etc/ssh/sshd_config")
    (cell.root_dir / "etc/ssh/sshd_config.d/50-unread.conf").write_text("MaxSessions 77\n")
    return WithoutDropIns(
        cell,
        before=remote(cell, "sshd -T"),
        report=harden(cell, harden_firewall=False, harden_password_login="no"),
        after=remote(cell, "sshd -T"),
    )


def test_who_needs_her_password_loses_it_where_none_is_wanted(
    without_drop_ins: WithoutDropIns,
) -> None:
    assert without_drop_ins.report.facts["need_passwords"] == ["kim"]
    assert without_drop_ins.report.facts["password_login"] == "no"
    assert "passwordauthentication no" in without_drop_ins.after.splitlines()


def test_a_configuration_that_reads_no_drop_ins_reads_ours_alone(
    without_drop_ins: WithoutDropIns, remote: Remote
) -> None:
    effective = without_drop_ins.after.splitlines()
    assert "passwordauthentication no" in effective
    assert "maxsessions 77" not in effective

    remote(without_drop_ins.cell, f"{TRIAL} end")
    assert remote(without_drop_ins.cell, "sshd -T") == without_drop_ins.before


@pytest.fixture(params=["never-hardened", "hardened-before"])
def overruled(
    request: pytest.FixtureRequest, start_test_cell: StartCell, remote: Remote
) -> Iterator[Cell]:
    """A cell with a drop-in that is read before ours and forbids what backups need."""
    if request.param == "hardened-before":
        cell = request.getfixturevalue("hardened").cell
    else:
        cell = start_test_cell("overruled")
    foreign = cell.root_dir / "etc/ssh/sshd_config.d/00-customer.conf"
    foreign.write_text("AllowStreamLocalForwarding no\n")
    yield cell
    foreign.unlink()
    remote(cell, f"{TRIAL} end")


def test_a_configuration_that_overrules_ours_leaves_everything_as_it_was(
    overruled: Cell, harden: Harden, remote: Remote
) -> None:
    before = settings_of(overruled)

    with pytest.raises(PlaybookFailed, match="overrules ours"):
        harden(overruled, harden_firewall=False, harden_tcp_forwarding="no")

    assert settings_of(overruled) == before
    assert remote(overruled, "echo still here") == "still here\n"


def test_a_system_that_is_not_of_debians_family_is_left_alone(
    start_test_cell: StartCell, harden: Harden
) -> None:
    cell = start_test_cell("stranger")
    (cell.root_dir / "etc/debian_version").unlink()
    (cell.root_dir / "etc/os-release").unlink()
    (cell.root_dir / "etc/os-release").write_text('PRETTY_NAME="Plan 9"\n')

    with pytest.raises(PlaybookFailed, match="Plan 9 is not of Debian's family"):
        harden(cell)

    assert not (cell.root_dir / "etc/managed").exists()


def test_kernel_settings_that_a_killed_worker_wrote_are_applied_and_nothing_else(
    start_test_cell: StartCell, remote: Remote
) -> None:
    """Docker switches forwarding on at run time, whatever files say."""
    cell = start_test_cell("kernel", isolated=True)
    written = (HARDEN_FILES / "sysctl.conf").read_text()
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


def who_needs_passwords(cell: Cell, remote: Remote) -> object:
    ours = public_key_of(cell.private_key)
    return look(remote, cell, "look_at_server.py", ours)["need_passwords"]


def settings_of(cell: Cell) -> str | None:
    path = cell.root_dir / SSHD_SETTINGS
    return path.read_text() if path.exists() else None
