"""Networks of cells: the host's loopback, or a namespace of their own behind a veth pair."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import subprocess
from dataclasses import dataclass
from typing import Final

from managed.domain.errors import CommandFailed

_SHARED_PORT: Final = 2222
_BENCHMARK_RANGE: Final = ipaddress.ip_network("198.18.0.0/15")


@dataclass(frozen=True)
class CellNetwork:
    """Where a cell's sshd listens. `identity` names its namespace and interfaces uniquely on this
    host; `gateway` is the host's end of the veth pair, empty for cells on the host's network.
    """

    identity: str
    address: str
    port: int
    gateway: str = ""

    @property
    def isolated(self) -> bool:
        return bool(self.gateway)

    @property
    def namespace(self) -> str:
        return f"cell-{self.identity}"


def choose(place: str, address: str | None, isolated: bool) -> CellNetwork:
    """The network of the cell that lives in the directory `place`; the same every time.

    A given address is used as it stands (isolated: an address whose /30 is free). The shared port
    is a high one: port 22 is taken on every address where the host's own sshd listens on all.
    """
    digest = hashlib.sha256(place.encode()).digest()
    identity = digest.hex()[:8]
    if isolated:
        size = _BENCHMARK_RANGE.num_addresses // 4
        block = _BENCHMARK_RANGE[4 * (int.from_bytes(digest[:4]) % size)]
        chosen = ipaddress.ip_address(address) if address else block + 2
        return CellNetwork(identity, str(chosen), 22, gateway=str(chosen - 1))
    own = f"127.{64 + digest[0] % 64}.{digest[1]}.{1 + digest[2] % 254}"
    return CellNetwork(identity, address or own, _SHARED_PORT)


def network_commands(network: CellNetwork) -> list[tuple[str, ...]]:
    """The ip commands that make an isolated cell's namespace and its veth pair, in order."""
    host_end, cell_end = _interfaces(network)
    inside = ("ip", "-n", network.namespace)
    return [
        ("ip", "netns", "add", network.namespace),
        ("ip", "link", "add", host_end, "type", "veth", "peer", "name", cell_end),
        ("ip", "link", "set", cell_end, "netns", network.namespace),
        ("ip", "addr", "add", f"{network.gateway}/30", "dev", host_end),
        ("ip", "link", "set", host_end, "up"),
        (*inside, "link", "set", cell_end, "name", "eth0"),
        (*inside, "addr", "add", f"{network.address}/30", "dev", "eth0"),
        (*inside, "link", "set", "lo", "up"),
        (*inside, "link", "set", "eth0", "up"),
        (*inside, "route", "add", "default", "via", network.gateway),
    ]


def add(network: CellNetwork) -> None:
    """Make the cell's own namespace, if it is to have one."""
    if not network.isolated:
        return
    for argv in network_commands(network):
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise CommandFailed(f"{' '.join(argv)}: {done.stderr.strip()}")


def remove(network: CellNetwork) -> None:
    """Remove the namespace and the veth pair; absent is fine."""
    if not network.isolated:
        return
    host_end, _cell_end = _interfaces(network)
    for argv in (("ip", "link", "del", host_end), ("ip", "netns", "del", network.namespace)):
        subprocess.run(argv, check=False, capture_output=True, timeout=30)


def ssh_answers(network: CellNetwork) -> bool:
    """Whether an SSH server greets at the cell's address."""
    try:
        with socket.create_connection((network.address, network.port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _interfaces(network: CellNetwork) -> tuple[str, str]:
    return f"mc{network.identity}h", f"mc{network.identity}c"
