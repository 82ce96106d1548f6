"""`Hypervisor` over libvirt: one node, servers named by their id."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import libvirt

from managed.domain.errors import AlreadyExists, Conflict, HypervisorError, NotFound
from managed.domain.servers import PowerState, ServerSpec
from managed.drivers.libvirt.acceleration import TIME_SCALE_WITHOUT_KVM, find_out
from managed.drivers.libvirt.connection import Connection
from managed.drivers.libvirt.console import begin_log, last_bytes
from managed.drivers.libvirt.disks import (
    create_disk,
    finish_interrupted_change,
    write_configuration_disk,
)
from managed.drivers.libvirt.domain_xml import (
    EMULATED_KERNEL_OPTIONS,
    interface_names,
    rescue_definition,
    server_definition,
    session_of,
    spec_of,
)
from managed.drivers.libvirt.node import Acceleration, LibvirtNode, checked_server_id
from managed.drivers.libvirt.restore_points import (
    PointStore,
    RunningDisk,
    StoppedDisk,
    checked_point_name,
)
from managed.ports import HypervisorCapabilities, RescueBoot, RestorePoint, ServerStats

_POWER_OFF_TIME_LIMIT: Final = 60.0
_STATES: Final = {
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.STOPPED,
}
# After a boot of the node a server is what it was last told to be; in rescue its disk may be in
# pieces, so there it stays off.
_STARTS_WITH_NODE: Final = 1
_STAYS_OFF: Final = 0
_FORGET_EVERYTHING: Final = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class LibvirtHypervisor:
    """The `Hypervisor` port; keeps no state but its connection, everything lies on the node."""

    def __init__(self, node: LibvirtNode) -> None:
        self._node = node
        self._connection = Connection(node.uri)
        self._accelerated: bool | None = None

    def close(self) -> None:
        self._connection.close()

    def capabilities(self) -> HypervisorCapabilities:
        with self._connection.use() as connection:
            accelerated = self._is_accelerated(connection)
        return HypervisorCapabilities(
            accelerated=accelerated,
            time_scale=1.0 if accelerated else TIME_SCALE_WITHOUT_KVM,
            live_restore_points=True,
            kernel_options=() if accelerated else EMULATED_KERNEL_OPTIONS,
        )

    # ------------------------------------------------------------ existence

    def create_server(self, spec: ServerSpec) -> None:
        """Defines first: a disk without a definition could be somebody's, and is never touched."""
        checked_server_id(spec.server_id)
        disk = self._node.disk(spec.server_id)
        with self._connection.use() as connection:
            domain = self._find(connection, spec.server_id)
            if domain is not None:
                if _spec(domain) != spec:
                    raise AlreadyExists("The server exists already, made differently")
                create_disk(disk, spec.disk_gib)
                return
            self._make_directories()
            if disk.exists():
                raise AlreadyExists(
                    "A disk of this server lies on the node, without a server",
                    hint="Destroy the server first if the disk holds nothing of worth.",
                )
            accelerated = self._is_accelerated(connection)
            domain = connection.defineXML(server_definition(spec, self._node, accelerated))
            try:
                create_disk(disk, spec.disk_gib)
            except BaseException:
                domain.undefineFlags(_FORGET_EVERYTHING)
                raise

    def destroy_server(self, server_id: str) -> None:
        """The definition goes last: as long as something is left, calling again removes it."""
        checked_server_id(server_id)
        with self._connection.use() as connection:
            domain = self._find(connection, server_id)
            if domain is not None:
                _pull_the_plug(domain)
            for path in self._node.files(server_id):
                path.unlink(missing_ok=True)
            domain = self._find(connection, server_id)
            if domain is not None:
                domain.undefineFlags(_FORGET_EVERYTHING)

    # ------------------------------------------------------------ power

    def power_state(self, server_id: str) -> PowerState:
        checked_server_id(server_id)
        with self._connection.use() as connection:
            domain = self._find(connection, server_id)
            return PowerState.ABSENT if domain is None else _state(domain)

    def start(self, server_id: str) -> None:
        with self._connection.use() as connection:
            domain, state = self._not_in_rescue(connection, server_id, "started")
            if state is PowerState.PAUSED:
                domain.resume()
            elif state is PowerState.STOPPED:
                finish_interrupted_change(self._node.disk(server_id))
                # The node may have learned since then whether it has KVM.
                definition = server_definition(
                    _spec(domain), self._node, self._is_accelerated(connection)
                )
                begin_log(self._node.console_log(server_id))
                domain = connection.defineXML(definition)
                domain.create()
            domain.setAutostart(_STARTS_WITH_NODE)

    def shut_down(self, server_id: str) -> None:
        with self._connection.use() as connection:
            domain, state = self._not_in_rescue(connection, server_id, "shut down")
            domain.setAutostart(_STAYS_OFF)
            if state is not PowerState.STOPPED:
                try:
                    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
                except libvirt.libvirtError:
                    if domain.isActive():
                        raise

    def power_off(self, server_id: str) -> None:
        with self._connection.use() as connection:
            domain, _ = self._not_in_rescue(connection, server_id, "powered off")
            domain.setAutostart(_STAYS_OFF)
            _pull_the_plug(domain)

    def reset(self, server_id: str) -> None:
        with self._connection.use() as connection:
            domain, state = self._not_in_rescue(connection, server_id, "reset")
            if state is PowerState.STOPPED:
                raise Conflict("A stopped server cannot be reset", hint="Start it.")
            domain.reset()

    # ------------------------------------------------------------ rescue

    def boot_rescue_image(self, server_id: str, rescue: RescueBoot) -> None:
        with self._connection.use() as connection:
            domain = self._domain(connection, server_id)
            if _session(domain) == rescue.session_id:
                return
            spec = _spec(domain)
            definition = rescue_definition(
                spec, rescue, self._node, self._is_accelerated(connection)
            )
            domain.setAutostart(_STAYS_OFF)
            _pull_the_plug(domain)
            finish_interrupted_change(self._node.disk(server_id))
            begin_log(self._node.console_log(server_id))
            configuration = self._node.configuration_disk(server_id)
            try:
                write_configuration_disk(configuration, rescue.configuration)
                connection.createXML(definition)
            except BaseException:
                configuration.unlink(missing_ok=True)
                raise

    def end_rescue(self, server_id: str, session_id: str) -> None:
        with self._connection.use() as connection:
            domain = self._domain(connection, server_id)
            running = _session(domain)
            if running == session_id:
                _pull_the_plug(domain)
            if running in (session_id, None):
                self._clear_leftovers(server_id)

    def rescue_sessions(self) -> Mapping[str, str]:
        sessions = {}
        with self._connection.use() as connection:
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                try:
                    session = _session(domain)
                except NotFound:
                    continue
                if session is not None:
                    sessions[domain.UUIDString()] = session
        return sessions

    # ------------------------------------------------------------ restore points

    def create_restore_point(self, server_id: str, name: str) -> None:
        checked_point_name(name)
        with self._connection.use() as connection:
            store = self._points(connection, server_id)
            if name not in {point.name for point in store.points()}:
                store.create(name)

    def revert_to_restore_point(self, server_id: str, name: str) -> None:
        checked_point_name(name)
        with self._connection.use() as connection:
            domain, _ = self._not_in_rescue(connection, server_id, "reverted")
            if name not in {point.name for point in self._points(connection, server_id).points()}:
                raise NotFound(f"There is no restore point {name}", name=name)
            domain.setAutostart(_STAYS_OFF)
            _pull_the_plug(domain)
            StoppedDisk(self._node.disk(server_id)).revert(name)

    def delete_restore_point(self, server_id: str, name: str) -> None:
        checked_point_name(name)
        with self._connection.use() as connection:
            store = self._points(connection, server_id)
            if name in {point.name for point in store.points()}:
                store.delete(name)

    def restore_points(self, server_id: str) -> Sequence[RestorePoint]:
        with self._connection.use() as connection:
            return self._points(connection, server_id).points()

    # ------------------------------------------------------------ observation

    def stats(self, server_id: str) -> ServerStats:
        """User-mode networking keeps no counters: there, both network values are 0.

        `memory_bytes` is what the guest's process holds of the node's memory.
        """
        with self._connection.use() as connection:
            domain = self._domain(connection, server_id)
            if _state(domain) is PowerState.STOPPED:
                raise Conflict("A stopped server has no statistics", hint="Start it.")
            memory = domain.memoryStats()
            read = domain.blockStats("vda")
            network = [domain.interfaceStats(each) for each in interface_names(domain.XMLDesc(0))]
            return ServerStats(
                cpu_seconds=domain.info()[4] / 1e9,
                memory_bytes=int(memory.get("rss", memory["actual"])) * 1024,
                disk_read_bytes=int(read[1]),
                disk_written_bytes=int(read[3]),
                network_received_bytes=sum(int(each[0]) for each in network),
                network_sent_bytes=sum(int(each[4]) for each in network),
            )

    def console_tail(self, server_id: str, size: int = 4096) -> str:
        with self._connection.use() as connection:
            self._domain(connection, server_id)
            return last_bytes(self._node.console_log(server_id), size).decode(errors="replace")

    # ------------------------------------------------------------ inside

    def _is_accelerated(self, connection: Any) -> bool:
        if self._node.acceleration is not Acceleration.AUTO:
            return self._node.acceleration is Acceleration.KVM
        if self._accelerated is None:
            self._accelerated = find_out(connection, self._node).accelerated
        return self._accelerated

    def _make_directories(self) -> None:
        """libvirt's QEMU may be another user: it may pass through, but not look around."""
        for path in (self._node.storage_dir, self._node.console_dir):
            path.mkdir(parents=True, exist_ok=True, mode=0o711)

    def _find(self, connection: Any, server_id: str) -> Any:
        """None when there is no such domain; HypervisorError when it is somebody else's."""
        try:
            domain = connection.lookupByUUIDString(server_id)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return None
        _spec(domain)
        return domain

    def _domain(self, connection: Any, server_id: str) -> Any:
        domain = self._find(connection, checked_server_id(server_id))
        if domain is None:
            raise NotFound("There is no such server on this node", server_id=server_id)
        return domain

    def _not_in_rescue(self, connection: Any, server_id: str, what: str) -> tuple[Any, PowerState]:
        """The domain and its state; also removes what a session that ended by itself left."""
        domain = self._domain(connection, server_id)
        state = _state(domain)
        if state is PowerState.RESCUE:
            raise Conflict(
                f"A server in a rescue session cannot be {what}", hint="End the session first."
            )
        self._clear_leftovers(server_id)
        return domain, state

    def _clear_leftovers(self, server_id: str) -> None:
        self._node.configuration_disk(server_id).unlink(missing_ok=True)

    def _points(self, connection: Any, server_id: str) -> PointStore:
        domain = self._domain(connection, server_id)
        disk = self._node.disk(server_id)
        return RunningDisk(domain, disk) if domain.isActive() else StoppedDisk(disk)


def _session(domain: Any) -> str | None:
    """The rescue session that runs in this domain; what is defined does not matter."""
    return session_of(domain.XMLDesc(0)) if domain.isActive() else None


def _spec(domain: Any) -> ServerSpec:
    spec = spec_of(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    if spec is None:
        raise HypervisorError("The domain with this server's id was not made by us")
    return spec


def _state(domain: Any) -> PowerState:
    state = _STATES.get(domain.state()[0], PowerState.RUNNING)
    if state is not PowerState.STOPPED and _session(domain) is not None:
        return PowerState.RESCUE
    return state


def _pull_the_plug(domain: Any) -> None:
    """End the domain and wait for it. On a busy node libvirt may give up on the process before
    the kernel has ended it: look again until the time limit.
    """
    deadline = time.monotonic() + _POWER_OFF_TIME_LIMIT
    while _is_active(domain):
        try:
            domain.destroy()
        except libvirt.libvirtError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _is_active(domain: Any) -> bool:
    """False also for a transient domain that has gone with its definition."""
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return False
