"""The nodes that servers run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from managed.domain.secrets import Secret
from managed.domain.servers import PowerState, ServerSpec


@dataclass(frozen=True)
class HypervisorCapabilities:
    """What this driver on this node can do, stated and not found out by failing.

    `accelerated` is True where guests really boot under KVM; timeouts are multiplied by
    `time_scale` (1.0 with KVM, more without). `kernel_options` are what the kernels of servers that
    are installed on this node should be given.
    """

    accelerated: bool
    time_scale: float
    live_restore_points: bool
    kernel_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class RescueBoot:
    """A temporary boot of the rescue image. `configuration` is the content of the small
    configuration disk: file name to content (the session's host key, authorized keys, network).
    `image` names an operating system image attached read-only with the serial `managed-image`.
    """

    session_id: str
    memory_mib: int
    configuration: Mapping[str, Secret]
    image: str | None = None


@dataclass(frozen=True)
class RestorePoint:
    name: str
    created_at: datetime


@dataclass(frozen=True)
class ServerStats:
    """Counters since power-on, for metering."""

    cpu_seconds: float
    memory_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


class Hypervisor(Protocol):
    """One node. Servers are named by their `server_id` only."""

    def capabilities(self) -> HypervisorCapabilities:
        """May take a bounded boot the first time; the answer is remembered per node."""
        ...

    def create_server(self, spec: ServerSpec) -> None:
        """Make the empty disk and the persistent definition, powered off.

        Again with the same spec changes nothing; raises AlreadyExists when the server exists with
        another spec. A failure half-way leaves nothing behind.
        """
        ...

    def destroy_server(self, server_id: str) -> None:
        """Power off; remove definition, disk, restore points, rescue leftovers. Absent is fine."""
        ...

    def power_state(self, server_id: str) -> PowerState:
        """RESCUE while a rescue session runs; ABSENT when there is no such server."""
        ...

    def start(self, server_id: str) -> None:
        """Boot the server from its own disk; running is fine. Conflict while in rescue.

        It boots with its node, too, until it is shut down, powered off or booted into rescue.
        """
        ...

    def shut_down(self, server_id: str) -> None:
        """Ask the guest to power off (ACPI); returns at once; stopped is fine."""
        ...

    def power_off(self, server_id: str) -> None:
        """Pull the plug; stopped is fine. Conflict while in rescue."""
        ...

    def reset(self, server_id: str) -> None:
        """Press the reset button. Conflict when stopped or in rescue."""
        ...

    def boot_rescue_image(self, server_id: str, rescue: RescueBoot) -> None:
        """Power the server off and start the transient rescue domain over its own definition.

        The same `session_id` already running is fine; another session is ended first.
        """
        ...

    def end_rescue(self, server_id: str, session_id: str) -> None:
        """End this rescue session, if it runs, and remove its configuration disk; that leaves the
        server stopped. Another session of the server, and a server without one, run on.
        """
        ...

    def rescue_sessions(self) -> Mapping[str, str]:
        """server_id to session_id of every rescue session that runs on this node."""
        ...

    def create_restore_point(self, server_id: str, name: str) -> None:
        """Keep the disk's present state under this name; the same name again is fine.

        Works on running servers when `live_restore_points`, else raises NotSupported.
        """
        ...

    def revert_to_restore_point(self, server_id: str, name: str) -> None:
        """Put the disk back to that state; the server is powered off first. Keeps the point."""
        ...

    def delete_restore_point(self, server_id: str, name: str) -> None:
        """Forget the point and keep the disk's present state; absent is fine."""
        ...

    def restore_points(self, server_id: str) -> Sequence[RestorePoint]: ...

    def stats(self, server_id: str) -> ServerStats:
        """Conflict when the server is stopped."""
        ...

    def console_tail(self, server_id: str, size: int = 4096) -> str:
        """The last `size` bytes that the serial console printed, decoded with replacement."""
        ...
