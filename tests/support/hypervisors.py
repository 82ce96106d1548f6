"""Nodes for the tests of the `Hypervisor` port: the fake, and a real one with a libvirt of its
own, together with what a test does to them behind the port's back.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import libvirt
import libvirt_qemu
import pytest

from images.rescue import RESCUE_COMMAND_LINE
from managed.domain.secrets import Secret
from managed.domain.servers import PortForward, ServerSpec, disk_serial_for
from managed.drivers.fakes.hypervisor import FakeHypervisor
from managed.drivers.libvirt import Acceleration, LibvirtHypervisor, LibvirtNode
from managed.drivers.libvirt.domain_xml import SERVER_DISK_ALIAS
from managed.lab.libvirtd import SESSION_URI, PrivateLibvirtd
from managed.lab.ports import free_port
from managed.ports import Hypervisor, RescueBoot
from tests.support.clean_after import cleaned_after_death

IMAGES = Path(__file__).parents[2] / "var" / "images"


def new_spec(disk_gib: int = 2) -> ServerSpec:
    server_id = str(uuid.uuid4())
    return ServerSpec(
        server_id=server_id,
        name="contract",
        vcpus=1,
        memory_mib=256,
        disk_gib=disk_gib,
        disk_serial=disk_serial_for(server_id),
        mac="52:54:00:" + ":".join(server_id[at : at + 2] for at in (0, 2, 4)),
        forwards=(PortForward(free_port(), 22),),
    )


def new_rescue(session_id: str = "session-1") -> RescueBoot:
    """A session whose guest finds its files but cannot be logged in to."""
    files = {"ssh_host_ed25519_key": "none", "authorized_keys": "none", "network.env": "MODE=dhcp"}
    return RescueBoot(session_id, 256, {name: Secret(text) for name, text in files.items()})


class Rig(Protocol):
    """A node and what happens on it without us."""

    @property
    def hypervisor(self) -> Hypervisor: ...

    def fill_disk(self, server_id: str, value: int) -> None:
        """Write 4096 bytes of this value at the start of the disk, stopped or running."""
        ...

    def disk_holds(self, server_id: str, value: int) -> bool:
        """Whether the first 4096 bytes of a stopped server's disk have this value."""
        ...

    def guest_reboots(self, server_id: str) -> None: ...

    def set_available(self, available: bool) -> None: ...

    def files(self, server_id: str) -> list[str]:
        """Names of the server's files on the node."""
        ...


class FakeRig:
    def __init__(self) -> None:
        self.hypervisor = FakeHypervisor()

    def fill_disk(self, server_id: str, value: int) -> None:
        self.hypervisor.write_disk(server_id, bytes([value]) * 4096)

    def disk_holds(self, server_id: str, value: int) -> bool:
        return self.hypervisor.read_disk(server_id).ljust(4096, b"\0") == bytes([value]) * 4096

    def guest_reboots(self, server_id: str) -> None:
        self.hypervisor.guest_reboots(server_id)

    def set_available(self, available: bool) -> None:
        self.hypervisor.available = available

    def files(self, server_id: str) -> list[str]:
        return []


@dataclass
class LibvirtRig:
    node: LibvirtNode
    hypervisor: LibvirtHypervisor
    daemon: PrivateLibvirtd | None

    def fill_disk(self, server_id: str, value: int) -> None:
        command = f"write -P {value} 0 4096"
        with self._running_domain(server_id) as domain:
            if domain is None:
                self._qemu_io(server_id, command)
                return
            device = f"/machine/peripheral/{SERVER_DISK_ALIAS}/virtio-backend"
            line = f'qemu-io -d {device} "{command}"'
            monitor = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            answer = libvirt_qemu.qemuMonitorCommand(domain, line, monitor)
            assert "rror" not in answer, answer

    def disk_holds(self, server_id: str, value: int) -> bool:
        printed = self._qemu_io(server_id, f"read -P {value} 0 4096")
        return "Pattern verification failed" not in printed

    def guest_reboots(self, server_id: str) -> None:
        with self._running_domain(server_id) as domain:
            assert domain is not None
            libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": "system_reset"}), 0)

    def set_available(self, available: bool) -> None:
        if self.daemon is None:
            pytest.skip("the user's own libvirt session is not ours to stop")
        if available:
            self.daemon.start()
        else:
            self.daemon.stop()

    def files(self, server_id: str) -> list[str]:
        return [path.name for path in self.node.files(server_id)]

    def definition(self, server_id: str) -> str:
        """The persistent definition, as libvirt stores it."""
        connection = libvirt.open(self.node.uri)
        try:
            domain = connection.lookupByUUIDString(server_id)
            definition: str = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            return definition
        finally:
            connection.close()

    @contextmanager
    def _running_domain(self, server_id: str) -> Iterator[libvirt.virDomain | None]:
        connection = libvirt.open(self.node.uri)
        try:
            domain = connection.lookupByUUIDString(server_id)
            yield domain if domain.isActive() else None
        finally:
            connection.close()

    def _qemu_io(self, server_id: str, command: str) -> str:
        disk = str(self.node.disk(server_id))
        ended = subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", command, disk], capture_output=True, text=True
        )
        assert not ended.stderr, ended.stderr
        return ended.stdout


@contextmanager
def libvirt_rig(folder: Path, acceleration: Acceleration) -> Iterator[LibvirtRig]:
    """A real node with its directories in `folder`; for root with a daemon of its own."""
    if not (IMAGES / "rescue" / "image.json").is_file():
        pytest.fail("the rescue image is not built")
    daemon = PrivateLibvirtd(folder / "lab") if os.geteuid() == 0 else None
    uri = SESSION_URI if daemon is None else daemon.start()
    node = LibvirtNode(
        uri=uri,
        storage_dir=folder / "disks",
        images_dir=IMAGES,
        console_dir=folder / "consoles",
        state_dir=folder / "state",
        acceleration=acceleration,
        rescue_command_line=RESCUE_COMMAND_LINE,
    )
    hypervisor = LibvirtHypervisor(node)
    with cleaned_after_death(folder / "lab"):
        try:
            yield LibvirtRig(node, hypervisor, daemon)
        finally:
            hypervisor.close()
            if daemon is not None:
                daemon.stop_everything()
                shutil.rmtree(folder / "lab", ignore_errors=True)
