"""Ours stands back where the customer has a firewall."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell
from tests.support.cells import StartCell
from tests.support.playbook_runs import Harden, Remote, seen

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


@pytest.fixture(scope="module")
def packages(start_test_cell: StartCell) -> Path:
    cell = start_test_cell("packages")
    done = SshShell().run(cell.endpoint, ("sh", "-ec", _DOWNLOAD), timeout=300)
    assert done.exit_status == 0, done.stderr
    return cell.root_dir / "srv/packages"


def offer(packages: Path, cell: Cell) -> None:
    """Let the cell's apt install these packages."""
    shutil.copytree(packages, cell.root_dir / "srv/packages")
    sources = cell.root_dir / "etc/apt/sources.list"
    sources.write_text("deb [trusted=yes] file:/srv/packages ./\n")


def test_a_firewall_of_the_customers_own_is_left_in_charge(
    start_test_cell: StartCell, remote: Remote
) -> None:
    cell = start_test_cell("own-firewall", isolated=True)
    remote(cell, "nft -f -", _CUSTOMERS_FIREWALL)

    assert foreign_firewall(cell, remote) == "ip filter"


def test_ufw_is_left_in_charge_where_nft_is_absent(
    start_test_cell: StartCell, harden: Harden, remote: Remote, packages: Path
) -> None:
    cell = start_test_cell("ufw", isolated=True)
    offer(packages, cell)
    remote(cell, "apt-get update && apt-get purge --yes nftables")
    remote(cell, "apt-get install --yes --no-install-recommends ufw")
    remote(cell, "ufw allow 22/tcp && ufw --force enable")

    report = harden(cell)

    assert report.facts["firewall"] == "foreign"
    assert report.facts["foreign_firewall"] == "ufw"
    assert "inet managed" not in remote(cell, "nft list tables")


def test_firewalld_is_left_in_charge(
    start_test_cell: StartCell, remote: Remote, packages: Path
) -> None:
    cell = start_test_cell("firewalld", isolated=True)
    offer(packages, cell)
    install = "apt-get install --yes --no-install-recommends firewalld netbase"
    remote(cell, f"apt-get update && {install} && systemctl restart firewalld")
    remote(cell, "timeout 60 sh -c 'until firewall-cmd --state; do sleep 0.2; done'")

    assert foreign_firewall(cell, remote) == "firewalld"


def test_iptables_legacy_is_left_in_charge(
    start_test_cell: StartCell, remote: Remote, packages: Path
) -> None:
    """nft shows nothing of it."""
    cell = start_test_cell("legacy", isolated=True)
    offer(packages, cell)
    remote(cell, "apt-get update && apt-get install --yes --no-install-recommends iptables")
    remote(cell, "iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT")
    remote(cell, "iptables-legacy -A INPUT -j DROP")

    assert foreign_firewall(cell, remote) == "iptables-legacy"


def foreign_firewall(cell: Cell, remote: Remote) -> object:
    """The firewall that the role leaves in charge there."""
    return seen(remote, cell, "look_at_firewalls.py")["foreign_firewall"]
