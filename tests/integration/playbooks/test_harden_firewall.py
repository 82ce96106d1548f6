"""The firewall stands back where the customer has one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell
from tests.support.cells import StartCell
from tests.support.playbook_runs import Harden, Remote, look

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]

_CUSTOMERS_FIREWALL = """
table ip filter {
  chain INPUT { type filter hook input priority 0; policy drop; tcp dport 1-65535 accept; }
}
"""
# A repository of what an isolated cell, which has no way out, is to install.
_DOWNLOAD = """
apt-get update --error-on=any
apt-get install --yes --download-only --no-install-recommends ufw firewalld netbase
mkdir /srv/packages
mv /var/cache/apt/archives/*.deb /srv/packages
cd /srv/packages
apt-get download nftables libnftables1
for file in *.deb; do
    dpkg-deb -f "$file"
    printf 'Filename: ./%s\\nSize: %s\\n' "$file" "$(stat -c %s "$file")"
    printf 'SHA256: %s\\n\\n' "$(sha256sum "$file" | cut -d' ' -f1)"
done > Packages
"""
# None is started: a firewalld that is stopped while it starts leaves its rules behind.
_INSTALL = """
systemctl mask firewalld
apt-get update
apt-get install --yes --no-install-recommends ufw firewalld netbase iptables
systemctl unmask firewalld
"""
_END_ALL = """
ufw --force disable
systemctl stop firewalld
iptables-legacy --flush
nft flush ruleset
"""


@pytest.fixture(scope="module")
def packages(start_test_cell: StartCell) -> Path:
    cell = start_test_cell("packages")
    done = SshShell().run(cell.endpoint, ("sh", "-ec", _DOWNLOAD), timeout=300)
    assert done.exit_status == 0, done.stderr
    return cell.root_dir / "srv/packages"


@pytest.fixture(scope="module")
def customers_cell(start_test_cell: StartCell, remote: Remote, packages: Path) -> Cell:
    """A cell with several programs that look after firewalls, of which none does."""
    cell = start_test_cell("customers-firewalls", isolated=True)
    shutil.copytree(packages, cell.root_dir / "srv/packages")
    sources = cell.root_dir / "etc/apt/sources.list"
    sources.write_text("deb [trusted=yes] file:/srv/packages ./\n")
    remote(cell, f"set -e; {_INSTALL}")
    return cell


@pytest.fixture
def cell(customers_cell: Cell, remote: Remote) -> Iterator[Cell]:
    """The customer's cell; what a test puts in force there is gone after it."""
    assert look(remote, customers_cell, "look_at_firewalls.py") == {"foreign_firewall": ""}
    yield customers_cell
    remote(customers_cell, f"set -e; {_END_ALL}")


def test_ufw_is_left_in_charge_where_nft_is_absent(
    cell: Cell, harden: Harden, remote: Remote
) -> None:
    """As is any other firewall that is seen."""
    remote(cell, "apt-get purge --yes nftables")
    remote(cell, "ufw allow 22/tcp && ufw --force enable")

    report = harden(cell)

    assert report.facts["firewall"] == "foreign"
    assert report.facts["foreign_firewall"] == "ufw"
    assert "inet managed" not in remote(cell, "nft list tables")


def test_a_firewall_of_the_customers_own_is_seen(cell: Cell, remote: Remote) -> None:
    remote(cell, "nft -f -", _CUSTOMERS_FIREWALL)

    assert look(remote, cell, "look_at_firewalls.py") == {"foreign_firewall": "ip filter"}


def test_firewalld_is_seen(cell: Cell, remote: Remote) -> None:
    remote(cell, "systemctl start firewalld")
    remote(cell, "timeout 60 sh -c 'until firewall-cmd --state; do sleep 0.2; done'")

    assert look(remote, cell, "look_at_firewalls.py") == {"foreign_firewall": "firewalld"}


def test_iptables_legacy_is_seen(cell: Cell, remote: Remote) -> None:
    """nft shows nothing of it."""
    remote(cell, "iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT")
    remote(cell, "iptables-legacy -A INPUT -j DROP")

    assert look(remote, cell, "look_at_firewalls.py") == {"foreign_firewall": "iptables-legacy"}
