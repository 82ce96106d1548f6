"""A server's life on an operator's host with a node, in a cell with its own systemd and libvirt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from managed.client import ManagedClient
from tests.support.cells import StartCell
from tests.support.node_host import make_node, order_server, owners
from tests.support.systemd_host import SECONDS, SystemdHost, host_release, operators_host
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.cell,
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.vm,
    pytest.mark.timeout(1800),
]


@pytest.fixture
def host(start_test_cell: StartCell) -> Iterator[SystemdHost]:
    with operators_host(start_test_cell("node-host", host_release())) as (host, _):
        make_node(host, "/opt/managed-1")
        yield host


def succeeded(client: ManagedClient, job_id: str) -> None:
    job = client.wait_for_job(job_id, lambda _event: None)
    assert job["status"] == "succeeded", job["error"]


def power(client: ManagedClient, name: str, action: str) -> None:
    job = client.post(f"/v1/servers/{name}/jobs", {"kind": "power", "action": action})
    succeeded(client, str(job["id"]))


def running(host: SystemdHost) -> list[str]:
    """The domains that run, by the name that libvirt has for them."""
    return host.run("virsh --connect qemu:///system list --name").split()


def test_a_server_is_made_outlives_a_boot_of_the_node_and_goes(host: SystemdHost) -> None:
    with host.client() as client:
        succeeded(client, order_server(client, "shop"))
        assert owners(host)["qcow2"] == "libvirt-qemu 600"

        host.run("systemctl --no-block reboot")
        wait_until(lambda: not host.is_ready(), timeout=SECONDS, what="the node goes down")
        wait_until(host.is_up, timeout=SECONDS, what="all parts are up after a boot")
        wait_until(lambda: running(host), timeout=SECONDS, what="the server boots, too")
        # Changes nothing of one that runs; the job waits until it answers.
        power(client, "shop", "start")

        power(client, "shop", "stop")
        assert owners(host)["qcow2"] == "managed 600", "libvirt gives back what it borrowed"
        power(client, "shop", "start")

        succeeded(client, str(client.delete("/v1/servers/shop")["id"]))
    assert owners(host) == {}
    assert host.run("virsh --connect qemu:///system list --all --name").split() == []
