"""An operator's host as a node: a libvirt of the system, whose QEMU is another user, set up by the
lines of the guide.

What a cell does not have: KVM, AppArmor, and control groups that libvirt could write.
"""

from __future__ import annotations

from managed.client import ManagedClient
from tests.support.systemd_host import SECONDS, SystemdHost, carry_out, guide_commands
from tests.support.waiting import wait_until

DISKS = "/srv/managed/servers"


def make_node(host: SystemdHost, folder: str) -> None:
    """Have the host be a node of its own; the program is in this folder."""
    host.run("echo 'APT::Get::Assume-Yes true;' >/etc/apt/apt.conf.d/90assume-yes")
    for line in guide_commands("A node"):
        carry_out(host, line, folder)
    host.run("echo 'cgroup_controllers = []' >>/etc/libvirt/qemu.conf; systemctl restart libvirtd")
    wait_until(host.is_up, timeout=SECONDS, what="all parts are up again")
    for line in guide_commands("A node", block=1):
        carry_out(host, line, folder)


def order_server(client: ManagedClient, name: str) -> str:
    """The id of the job that creates a server of this name."""
    order = {"name": name, "operating_system": "debian-12", "memory_mib": 512, "disk_gib": 2}
    return str(client.post("/v1/servers", order)["job"]["id"])


def owners(host: SystemdHost) -> dict[str, str]:
    """Owner and mode of every file in the folder of disks, by its name without the server's id."""
    found = host.run(f"find {DISKS} -type f -printf '%f %u %m\\n'").splitlines()
    return {name.partition(".")[2]: f"{user} {mode}" for name, user, mode in map(str.split, found)}
