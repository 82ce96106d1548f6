"""An operator's host with a node: its own libvirt, whose QEMU is another user, and the units of
deploy/systemd, all of it installed by the lines of the guide in a cell with its own systemd.

What a cell does not have: KVM, AppArmor, and control groups that libvirt could write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from managed.client import ManagedClient
from tests.support.cells import StartCell
from tests.support.systemd_host import (
    SECONDS,
    SystemdHost,
    carry_out,
    guide_commands,
    host_release,
    operators_host,
)
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.cell,
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.vm,
    pytest.mark.timeout(400),
]

DISKS = "/srv/managed/servers"
REACH_LIBVIRT = ("managed-api", "managed-clock", "managed-worker@1", "managed-worker@2")


@pytest.fixture(scope="module")
def host(start_test_cell: StartCell) -> Iterator[SystemdHost]:
    with operators_host(start_test_cell("node-host", host_release())) as (host, _):
        host.run("echo 'APT::Get::Assume-Yes true;' >/etc/apt/apt.conf.d/90assume-yes")
        for line in guide_commands("A node"):
            carry_out(host, line, "/opt/managed-1")
        host.run("echo 'cgroup_controllers = []' >>/etc/libvirt/qemu.conf")
        host.run("systemctl restart libvirtd")
        wait_until(host.is_up, timeout=SECONDS, what="all parts are up again")
        for line in guide_commands("A node", block=1):
            carry_out(host, line, "/opt/managed-1")
        yield host


def ordered(client: ManagedClient, name: str) -> str:
    """The id of the job that creates a server of this name."""
    order = {"name": name, "operating_system": "debian-12", "memory_mib": 512, "disk_gib": 2}
    return str(client.post("/v1/servers", order)["job"]["id"])


def succeeded(client: ManagedClient, job_id: str) -> None:
    job = client.wait_for_job(job_id, lambda _event: None)
    assert job["status"] == "succeeded", job["error"]


def power(client: ManagedClient, name: str, action: str) -> None:
    job = client.post(f"/v1/servers/{name}/jobs", {"kind": "power", "action": action})
    succeeded(client, str(job["id"]))


def owners(host: SystemdHost) -> dict[str, str]:
    """Owner and mode of every file in the folder of disks, by its name without the server's id."""
    found = host.run(f"find {DISKS} -type f -printf '%f %u %m\\n'").splitlines()
    return {name.partition(".")[2]: f"{user} {mode}" for name, user, mode in map(str.split, found)}


def test_the_guides_lines_make_the_host_a_node(host: SystemdHost) -> None:
    (node,) = json.loads(host.run("managed nodes list --json"))["items"]
    assert (node["libvirt_uri"], node["storage_dir"]) == ("qemu:///system", DISKS)


@pytest.mark.parametrize("unit", ["managed-gateway", *REACH_LIBVIRT])
def test_all_parts_but_the_gateway_reach_libvirt(host: SystemdHost, unit: str) -> None:
    """Customers' servers speak to it, and who may use libvirt is as good as root."""
    process = host.property_of(unit, "MainPID")
    seen = host.run(f"ls -A /proc/{process}/root/run/libvirt").split()
    assert ("libvirt-sock" in seen) == (unit in REACH_LIBVIRT)


def test_the_clock_reads_consoles_and_logs_in_and_a_cancelled_create_leaves_nothing(
    host: SystemdHost,
) -> None:
    """Clock and workers take turns, so that the job goes no further than its rescue session."""
    workers = "managed-worker@1 managed-worker@2"
    host.run("systemctl stop managed-clock")
    with host.client() as client:
        job_id = ordered(client, "given-up")

        def status() -> str:
            return str(client.get(f"/v1/jobs/{job_id}")["status"])

        wait_until(lambda: status() == "waiting", timeout=SECONDS, what="the session boots")
        assert owners(host) == {
            "qcow2": "libvirt-qemu 600",
            "rescue-config.raw": "libvirt-qemu 600",
            "log": "managed 600",
        }
        host.run(f"systemctl stop {workers}; systemctl start managed-clock")
        wait_until(lambda: status() == "queued", timeout=SECONDS, what="the clock is let in")
        client.post(f"/v1/jobs/{job_id}/cancel")
        host.run(f"systemctl start {workers}")
        job = client.wait_for_job(job_id, lambda _event: None)
    assert job["status"] == "cancelled", job["error"]
    assert owners(host) == {}
    wait_until(host.is_up, timeout=SECONDS, what="all parts are up again")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_server_is_made_outlives_a_boot_of_the_node_and_goes(host: SystemdHost) -> None:
    with host.client() as client:
        succeeded(client, ordered(client, "shop"))
        assert owners(host)["qcow2"] == "libvirt-qemu 600"

        host.run("systemctl --no-block reboot")
        wait_until(lambda: not host.is_ready(), timeout=SECONDS, what="the node goes down")
        wait_until(host.is_up, timeout=SECONDS, what="all parts are up after a boot")
        domains = "virsh --connect qemu:///system list --name"
        wait_until(lambda: host.run(domains).strip(), timeout=SECONDS, what="the server runs")
        # Fine for one that runs; it waits until the server answers.
        power(client, "shop", "start")

        power(client, "shop", "stop")
        assert owners(host)["qcow2"] == "managed 600", "what libvirt borrowed is given back"
        power(client, "shop", "start")

        succeeded(client, str(client.delete("/v1/servers/shop")["id"]))
    assert owners(host) == {}
    assert host.run(f"{domains} --all").strip() == ""
