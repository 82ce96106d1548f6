"""Servers and nodes: what they are, and which names, sizes and addresses are acceptable."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from managed.domain.errors import InvalidInput

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*\.?")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")

MEMORY_MIB: Final = (256, 1_048_576)
DISK_GIB: Final = (2, 65_536)
VCPUS: Final = (1, 256)


class ServerOrigin(StrEnum):
    """Who made the server: we did on a node of ours, or it existed and was enrolled."""

    CREATED = "created"
    ENROLLED = "enrolled"


class ServerStatus(StrEnum):
    NEW = "new"
    ACTIVE = "active"
    RESCUE = "rescue"
    BROKEN = "broken"
    DELETED = "deleted"


class OperatingSystem(StrEnum):
    """Operating systems that can be installed; the value is the image's name."""

    DEBIAN_12 = "debian-12"
    DEBIAN_13 = "debian-13"


class PowerState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    RESCUE = "rescue"
    ABSENT = "absent"


@dataclass(frozen=True)
class PortForward:
    """A port on the node's loopback that leads to a port of the server (lab networking)."""

    host_port: int
    guest_port: int


@dataclass(frozen=True)
class ServerSpec:
    """What the hypervisor needs to know of a server; ids of the platform never leave its driver.

    `disk_serial` is how every later boot finds the disk (at most 20 characters). With `bridge`
    the server hangs on that bridge of the node; without, it has user-mode networking and
    `forwards` lead to it from the node's loopback.
    """

    server_id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    disk_serial: str
    mac: str
    bridge: str | None = None
    forwards: tuple[PortForward, ...] = ()


@dataclass(frozen=True)
class Node:
    node_id: str
    name: str
    libvirt_uri: str
    storage_dir: str


@dataclass(frozen=True)
class Server:
    """A VPS under management as the database knows it.

    `address` and `ssh_port` are where SSH answers, `host_key` the pinned public key line
    ("ssh-ed25519 AAAA…", without comment; empty until first known). `spec` is None for
    enrolled servers that no node of ours runs. `operating_system` is informative for those.
    Without `customer_id` it is the provider's own, without `plan_id` on no plan.
    """

    server_id: str
    name: str
    origin: ServerOrigin
    status: ServerStatus
    address: str
    ssh_port: int
    ssh_user: str
    host_key: str
    operating_system: str
    node_id: str | None = None
    spec: ServerSpec | None = None
    created_at: datetime | None = None
    customer_id: str | None = None
    plan_id: str | None = None

    @property
    def disk_serial(self) -> str:
        return self.spec.disk_serial if self.spec else ""


def disk_serial_for(server_id: str) -> str:
    """The virtio serial (20 characters at most) of a server's own disk."""
    return "srv-" + server_id.replace("-", "")[-16:]


def checked_name(name: str) -> str:
    """A host name label that is also safe as a path part and in a repository's address."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a server name",
            hint="Use 1 to 63 lower-case letters, digits and hyphens, not at the ends.",
            field="name",
        )
    return name


def checked_size(vcpus: int, memory_mib: int, disk_gib: int) -> tuple[int, int, int]:
    for field, value, (low, high) in (
        ("vcpus", vcpus, VCPUS),
        ("memory_mib", memory_mib, MEMORY_MIB),
        ("disk_gib", disk_gib, DISK_GIB),
    ):
        if not low <= value <= high:
            raise InvalidInput(
                f"{field} is {value}", hint=f"It must be from {low} to {high}.", field=field
            )
    return vcpus, memory_mib, disk_gib


def checked_address(address: str) -> str:
    """An IPv4 or IPv6 address or a host name; nothing that a command line could read otherwise."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        if len(address) <= 253 and _HOST.fullmatch(address):
            return address.lower()
    raise InvalidInput(
        f"{address!r} is neither an IP address nor a host name",
        hint="Give an address such as 192.0.2.10, 2001:db8::10 or vps.example.org.",
        field="address",
    )


def checked_user(user: str) -> str:
    if not _USER.fullmatch(user):
        raise InvalidInput(
            f"{user!r} is not a login name", hint="Give a name such as root.", field="ssh_user"
        )
    return user
