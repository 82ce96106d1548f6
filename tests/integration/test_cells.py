"""Cells: what they share with the host, what not, and what is left when they are gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from managed.domain.errors import CommandFailed, Conflict, NotFound, ServerUnreachable
from managed.drivers.ssh.shell import SshShell
from managed.lab import cell_processes
from managed.lab.cells import (
    Cell,
    allow_many_cells,
    cells_down,
    list_cells,
    load_cell,
    start_cell,
    stop_cell,
)
from tests.support.cells import StartCell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.cell

# Changes the rules of whatever network namespace it runs in, then shows them.
FIREWALL = ["sh", "-c", "nft add table inet test_of_cells; nft list ruleset"]


def host_firewall(root: Path) -> str:
    """The host's rules, read with a cell's nft because the host may have none."""
    command = ("chroot", str(root), "nft", "list", "ruleset")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def on_hosts_network(start_test_cell: StartCell) -> Cell:
    """A cell that no test stops."""
    return start_test_cell("on-hosts-network")


@pytest.mark.parametrize("release", ["debian-12", "debian-13"])
def test_a_cell_is_a_whole_debian_with_systemd(
    start_test_cell: StartCell, on_hosts_network: Cell, release: str
) -> None:
    started = on_hosts_network if release == "debian-12" else start_test_cell(release=release)
    shell = SshShell()
    wait_until(
        lambda: (
            shell.run(started.endpoint, ["systemctl", "is-system-running"]).stdout
            in ("running\n", "degraded\n")
        ),
        timeout=60,
        what="it is booted",
    )
    run = ["systemd-run", "--wait", "--pipe", "--collect", "--quiet", "cat", "/etc/os-release"]
    assert f'VERSION_ID="{release[-2:]}"' in shell.run(started.endpoint, run).stdout


def test_security_updates_wait_in_a_debian_12_cell(on_hosts_network: Cell) -> None:
    shell, endpoint = SshShell(), on_hosts_network.endpoint
    updated = shell.run(endpoint, ["apt-get", "update", "--error-on=any"], timeout=200)
    assert updated.exit_status == 0, updated.stderr
    simulated = shell.run(endpoint, ["apt-get", "--simulate", "dist-upgrade"])
    assert simulated.stdout.count("\nInst ") >= 5


def test_a_cell_on_the_hosts_network_cannot_touch_its_firewall(on_hosts_network: Cell) -> None:
    assert SshShell().run(on_hosts_network.endpoint, FIREWALL).exit_status != 0
    assert "test_of_cells" not in host_firewall(on_hosts_network.root_dir)


def test_an_isolated_cell_has_a_firewall_of_its_own(start_test_cell: StartCell) -> None:
    started = start_test_cell(isolated=True)
    assert "table inet test_of_cells" in SshShell().run(started.endpoint, FIREWALL).stdout
    assert "test_of_cells" not in host_firewall(started.root_dir)
    namespace = Path("/run/netns") / started.network.namespace
    assert namespace.exists()
    stop_cell(started)
    assert not namespace.exists()


def test_cells_end_apart(start_test_cell: StartCell, on_hosts_network: Cell) -> None:
    another = start_test_cell()
    stop_cell(another)
    assert SshShell().run(on_hosts_network.endpoint, ["true"]).exit_status == 0
    assert not another.is_running
    assert not os.path.ismount(another.root_dir)


def test_a_cell_reboots_by_itself_and_keeps_its_files(on_hosts_network: Cell) -> None:
    shell, started = SshShell(), on_hosts_network
    before = shell.boot_id(started.endpoint)
    shell.write_file(started.endpoint, "/root/kept", b"kept", 0o600)
    with contextlib.suppress(ServerUnreachable):
        shell.run(started.endpoint, ["systemctl", "reboot"], timeout=20)

    def has_rebooted() -> bool:
        try:
            return shell.boot_id(started.endpoint) != before
        except (ServerUnreachable, CommandFailed):
            return False

    wait_until(has_rebooted, timeout=60, what="it is on another boot")
    assert shell.read_file(started.endpoint, "/root/kept") == b"kept"


def test_what_a_killed_starter_left_behind_is_found_and_removed(
    on_hosts_network: Cell, tmp_path: Path
) -> None:
    started = start_cell(tmp_path, on_hosts_network.base_root, "left-behind", isolated=True)
    nspawn = min(cell_processes.process_ids(started.group))
    os.kill(nspawn, signal.SIGKILL)
    (tmp_path / "cells/half-made").mkdir()
    assert [found.name for found in list_cells(tmp_path)] == ["left-behind"]
    assert cells_down(tmp_path) == ["left-behind"]
    assert not cell_processes.process_ids(started.group)
    assert list((tmp_path / "cells").iterdir()) == []
    links = json.loads(subprocess.check_output(("ip", "-json", "link")))
    assert not [link for link in links if started.network.identity in link["ifname"]]
    with pytest.raises(NotFound):
        load_cell(tmp_path, "left-behind")


def test_the_same_name_with_another_network_is_a_conflict(on_hosts_network: Cell) -> None:
    started = on_hosts_network
    with pytest.raises(Conflict):
        start_cell(started.directory.parents[1], started.base_root, started.name, isolated=True)


def test_a_hosts_low_limit_is_raised_and_a_high_one_left_alone(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    low.write_text("128\n")
    high.write_text("65536\n")
    for limit in (low, high, tmp_path / "absent"):
        allow_many_cells(limit)
    assert (low.read_text(), high.read_text()) == ("8192\n", "65536\n")
    assert not (tmp_path / "absent").exists()
