"""A node in memory that keeps the contract of `Hypervisor`; no guest really runs on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import RLock

from managed.domain.errors import (
    AlreadyExists,
    Conflict,
    HypervisorError,
    HypervisorUnavailable,
    NotFound,
)
from managed.domain.servers import DISK_GIB, PowerState, ServerSpec
from managed.ports import HypervisorCapabilities, RescueBoot, RestorePoint, ServerStats


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class _Server:
    spec: ServerSpec
    power: PowerState = PowerState.STOPPED
    disk: bytes = b""
    points: dict[str, tuple[RestorePoint, bytes]] = field(default_factory=dict)
    rescue: RescueBoot | None = None
    console: str = ""


class FakeHypervisor:
    """The `Hypervisor` port in memory.

    `available = False` makes every call raise HypervisorUnavailable. The methods after the port's
    own do what happens on a real node without us: guests write, print, reboot and power off.
    A disk larger than what the service sells cannot be made.
    """

    def __init__(self, clock: Callable[[], datetime] = _now, *, accelerated: bool = True) -> None:
        self.available = True
        self._clock = clock
        self._accelerated = accelerated
        self._servers: dict[str, _Server] = {}
        self._lock = RLock()

    # ------------------------------------------------------------ the port

    def capabilities(self) -> HypervisorCapabilities:
        self._check_available()
        return HypervisorCapabilities(
            accelerated=self._accelerated,
            time_scale=1.0 if self._accelerated else 6.0,
            live_restore_points=True,
            kernel_options=() if self._accelerated else ("mitigations=off",),
        )

    def create_server(self, spec: ServerSpec) -> None:
        self._check_available()
        with self._lock:
            present = self._servers.get(spec.server_id)
            if present is not None and present.spec != spec:
                raise AlreadyExists("The server exists already, made differently")
            if spec.disk_gib > DISK_GIB[1]:
                raise HypervisorError("The disk is too large")
            self._servers.setdefault(spec.server_id, _Server(spec))

    def destroy_server(self, server_id: str) -> None:
        self._check_available()
        with self._lock:
            self._servers.pop(server_id, None)

    def power_state(self, server_id: str) -> PowerState:
        self._check_available()
        server = self._servers.get(server_id)
        return PowerState.ABSENT if server is None else server.power

    def start(self, server_id: str) -> None:
        self._not_in_rescue(server_id).power = PowerState.RUNNING

    def shut_down(self, server_id: str) -> None:
        """Guests here obey at once."""
        self._not_in_rescue(server_id).power = PowerState.STOPPED

    def power_off(self, server_id: str) -> None:
        self._not_in_rescue(server_id).power = PowerState.STOPPED

    def reset(self, server_id: str) -> None:
        if self._not_in_rescue(server_id).power is PowerState.STOPPED:
            raise Conflict("A stopped server cannot be reset")

    def boot_rescue_image(self, server_id: str, rescue: RescueBoot) -> None:
        with self._lock:
            server = self._server(server_id)
            if server.rescue is None or server.rescue.session_id != rescue.session_id:
                server.rescue, server.power = rescue, PowerState.RESCUE
                server.console += f"managed-rescue: session {rescue.session_id}\n"

    def end_rescue(self, server_id: str, session_id: str) -> None:
        with self._lock:
            server = self._server(server_id)
            if server.rescue is not None and server.rescue.session_id == session_id:
                server.rescue, server.power = None, PowerState.STOPPED

    def rescue_sessions(self) -> Mapping[str, str]:
        self._check_available()
        with self._lock:
            return {
                server_id: server.rescue.session_id
                for server_id, server in self._servers.items()
                if server.rescue is not None
            }

    def create_restore_point(self, server_id: str, name: str) -> None:
        with self._lock:
            server = self._server(server_id)
            server.points.setdefault(name, (RestorePoint(name, self._clock()), server.disk))

    def revert_to_restore_point(self, server_id: str, name: str) -> None:
        with self._lock:
            server = self._not_in_rescue(server_id)
            if name not in server.points:
                raise NotFound(f"There is no restore point {name}", name=name)
            server.power, server.disk = PowerState.STOPPED, server.points[name][1]

    def delete_restore_point(self, server_id: str, name: str) -> None:
        self._server(server_id).points.pop(name, None)

    def restore_points(self, server_id: str) -> Sequence[RestorePoint]:
        return [point for point, _ in self._server(server_id).points.values()]

    def stats(self, server_id: str) -> ServerStats:
        server = self._server(server_id)
        if server.power is PowerState.STOPPED:
            raise Conflict("A stopped server has no statistics")
        return ServerStats(1.0, server.spec.memory_mib * 1024 * 1024, 0, len(server.disk), 0, 0)

    def console_tail(self, server_id: str, size: int = 4096) -> str:
        console = self._server(server_id).console.encode()
        return console[-size:].decode(errors="replace") if size else ""

    # ------------------------------------------------------------ what happens without us

    def write_disk(self, server_id: str, content: bytes) -> None:
        """The guest (or the rescue session) writes this to its disk."""
        self._server(server_id).disk = content

    def read_disk(self, server_id: str) -> bytes:
        """What the server's disk holds now."""
        return self._server(server_id).disk

    def print_on_console(self, server_id: str, text: str) -> None:
        """The guest prints on its serial console."""
        self._server(server_id).console += text

    def guest_reboots(self, server_id: str) -> None:
        """Inside a rescue session that ends it; a server comes back."""
        with self._lock:
            server = self._server(server_id)
            if server.rescue is not None:
                server.rescue, server.power = None, PowerState.STOPPED

    def rescue_of(self, server_id: str) -> RescueBoot | None:
        """What the running rescue session was booted with."""
        return self._server(server_id).rescue

    # ------------------------------------------------------------ inside

    def _check_available(self) -> None:
        if not self.available:
            raise HypervisorUnavailable("The node does not answer", retry_after=5.0)

    def _server(self, server_id: str) -> _Server:
        self._check_available()
        server = self._servers.get(server_id)
        if server is None:
            raise NotFound("There is no such server on this node", server_id=server_id)
        return server

    def _not_in_rescue(self, server_id: str) -> _Server:
        server = self._server(server_id)
        if server.rescue is not None:
            raise Conflict("The server is in a rescue session", hint="End the session first.")
        return server
