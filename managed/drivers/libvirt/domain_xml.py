"""libvirt's domain definitions, built and read by pure functions.

The persistent definition of a server carries its ServerSpec, the transient one of a rescue
session the session's id, both in an element of our own namespace below `<metadata>`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from managed.domain.servers import PortForward, ServerSpec
from managed.drivers.libvirt.node import LibvirtNode, RescueImage
from managed.ports import RescueBoot

QEMU_NAMESPACE: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
OUR_NAMESPACE: Final = "urn:managed:server"

SERVER_DISK_ALIAS: Final = "ua-server-disk"
RESCUE_SERIAL: Final = "managed-rescue"
CONFIGURATION_SERIAL: Final = "managed-config"
IMAGE_SERIAL: Final = "managed-image"

# libvirt hands out the first free slots of pci.0 and knows nothing of devices on qemu:commandline,
# so ours sits at the far end.
_USER_NETWORK_SLOT: Final = "0x1e"

_EMULATED_CPU: Final = "Westmere"
# TCG keeps translated code by its virtual address: with random addresses every start of a program
# is translated anew, which makes it four times as slow. An emulated processor speculates nothing.
EMULATED_KERNEL_OPTIONS: Final = ("norandmaps", "mitigations=off")

ElementTree.register_namespace("qemu", QEMU_NAMESPACE)
ElementTree.register_namespace("managed", OUR_NAMESPACE)


@dataclass(frozen=True)
class Disk:
    """One virtio disk. The format is always stated: a guest can write any header into its disk."""

    path: Path
    file_format: str
    serial: str
    read_only: bool = False
    alias: str | None = None


def domain_name(server_id: str) -> str:
    return f"managed-{server_id}"


def server_definition(spec: ServerSpec, node: LibvirtNode, accelerated: bool) -> str:
    """The persistent definition: boots from the server's own disk, resets when the guest asks."""
    domain = _domain(spec, spec.memory_mib, accelerated)
    _metadata(domain, spec, session_id=None)
    os = _operating_system(domain)
    SubElement(os, "boot", dev="hd")
    _events(domain, on_reboot="restart")
    _devices(domain, spec, [_own_disk(spec, node)], node.console_log(spec.server_id))
    return _text(domain)


def rescue_definition(
    spec: ServerSpec, rescue: RescueBoot, node: LibvirtNode, accelerated: bool
) -> str:
    """The transient definition of a rescue session; it ends when its guest reboots."""
    image = node.rescue_image()
    disks = [
        _own_disk(spec, node),
        Disk(image.root, "raw", RESCUE_SERIAL, read_only=True),
        Disk(node.configuration_disk(spec.server_id), "raw", CONFIGURATION_SERIAL, read_only=True),
    ]
    if rescue.image is not None:
        path = node.operating_system_image(rescue.image)
        disks.append(Disk(path, "raw", IMAGE_SERIAL, read_only=True))
    domain = _domain(spec, max(spec.memory_mib, rescue.memory_mib), accelerated)
    _metadata(domain, spec, rescue.session_id)
    options = () if accelerated else EMULATED_KERNEL_OPTIONS
    command_line = " ".join((node.rescue_command_line, *options))
    _kernel(domain, image.kernel, image.initramfs, command_line)
    _events(domain, on_reboot="destroy")
    devices = _devices(domain, spec, disks, node.console_log(spec.server_id))
    SubElement(devices, "memballoon", model="none")
    return _text(domain)


def probe_definition(domain_id: str, image: RescueImage, console_log: Path) -> str:
    """A throw-away KVM guest that boots the rescue image's kernel, with no disk and no network."""
    spec = ServerSpec(domain_id, f"probe-{domain_id}", 1, 256, 0, "", "")
    domain = _domain(spec, spec.memory_mib, accelerated=True)
    _kernel(domain, image.packed_kernel, image.initramfs, "console=ttyS0 panic=-1")
    _events(domain, on_reboot="destroy")
    devices = _bare_devices(domain, console_log)
    SubElement(devices, "memballoon", model="none")
    return _text(domain)


def spec_of(definition: str) -> ServerSpec | None:
    """The spec that a definition carries; None when the domain is none of ours."""
    found = _read(definition).findtext(f"metadata/{_ours('server')}/{_ours('spec')}")
    if not found:
        return None
    values = json.loads(found)
    values["forwards"] = tuple(PortForward(**forward) for forward in values["forwards"])
    return ServerSpec(**values)


def session_of(definition: str) -> str | None:
    """The id of the rescue session that a definition stands for; None for any other domain."""
    rescue = _read(definition).find(f"metadata/{_ours('server')}/{_ours('rescue')}")
    return None if rescue is None else rescue.get("session")


def interface_names(definition: str) -> list[str]:
    """The host's names of a running domain's interfaces; none with user-mode networking."""
    targets = _read(definition).findall("devices/interface/target")
    return [name for target in targets if (name := target.get("dev"))]


def disk_paths(definition: str) -> list[Path]:
    """The files that are a domain's disks."""
    sources = _read(definition).findall("devices/disk/source")
    return [Path(path) for source in sources if (path := source.get("file"))]


def user_network_arguments(mac: str, forwards: Sequence[PortForward]) -> tuple[str, ...]:
    """QEMU's arguments for user-mode networking: IPv4 only, forwards from the loopback only.

    The guest gets 10.0.2.15, its gateway and our loopback is 10.0.2.2, its name server 10.0.2.3.
    """
    backend = ["user", "id=managed-net", "ipv6=off"]
    backend += [f"hostfwd=tcp:127.0.0.1:{each.host_port}-:{each.guest_port}" for each in forwards]
    device = f"virtio-net-pci,netdev=managed-net,mac={mac},bus=pci.0,addr={_USER_NETWORK_SLOT}"
    return ("-netdev", ",".join(backend), "-device", device)


def _ours(tag: str) -> str:
    return f"{{{OUR_NAMESPACE}}}{tag}"


def _read(definition: str) -> Element:
    # libvirt wrote it from a document that it had parsed and checked: nothing hostile is in it.
    return ElementTree.fromstring(definition)  # noqa: S314


def _text(domain: Element) -> str:
    return ElementTree.tostring(domain, encoding="unicode")


def _with_text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def _own_disk(spec: ServerSpec, node: LibvirtNode) -> Disk:
    return Disk(node.disk(spec.server_id), "qcow2", spec.disk_serial, alias=SERVER_DISK_ALIAS)


def _domain(spec: ServerSpec, memory_mib: int, accelerated: bool) -> Element:
    """Everything up to the operating system. Without acpi and apic virtio gets no interrupts."""
    domain = Element("domain", type="kvm" if accelerated else "qemu")
    _with_text(domain, "name", domain_name(spec.server_id))
    _with_text(domain, "uuid", spec.server_id)
    _with_text(domain, "title", spec.name)
    _with_text(domain, "memory", str(memory_mib), unit="MiB")
    _with_text(domain, "vcpu", str(spec.vcpus))
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    _cpu(domain, accelerated)
    SubElement(domain, "clock", offset="utc")
    return domain


def _cpu(domain: Element, accelerated: bool) -> None:
    """The host's own CPU, or the newest one without AVX: TCG emulates vector code so slowly that
    hashing and restic take up to twice as long where programs choose it. TCG runs one thread per
    vCPU by itself where host and guest are both x86.
    """
    if accelerated:
        SubElement(domain, "cpu", mode="host-passthrough")
        return
    cpu = SubElement(domain, "cpu", mode="custom", match="exact", check="none")
    _with_text(cpu, "model", _EMULATED_CPU, fallback="forbid")


def _metadata(domain: Element, spec: ServerSpec, session_id: str | None) -> None:
    ours = SubElement(SubElement(domain, "metadata"), _ours("server"))
    _with_text(ours, _ours("spec"), json.dumps(asdict(spec), sort_keys=True))
    if session_id is not None:
        SubElement(ours, _ours("rescue"), session=session_id)


def _operating_system(domain: Element) -> Element:
    os = SubElement(domain, "os")
    _with_text(os, "type", "hvm", arch="x86_64", machine="pc")
    return os


def _kernel(domain: Element, kernel: Path, initramfs: Path, command_line: str) -> None:
    os = _operating_system(domain)
    _with_text(os, "kernel", str(kernel))
    _with_text(os, "initrd", str(initramfs))
    _with_text(os, "cmdline", command_line)


def _events(domain: Element, on_reboot: str) -> None:
    _with_text(domain, "on_poweroff", "destroy")
    _with_text(domain, "on_reboot", on_reboot)
    _with_text(domain, "on_crash", "destroy")


def _devices(
    domain: Element, spec: ServerSpec, disks: Sequence[Disk], console_log: Path
) -> Element:
    devices = _bare_devices(domain, console_log)
    for disk, letter in zip(disks, "abcd", strict=False):
        _disk(devices, disk, f"vd{letter}")
    rng = SubElement(devices, "rng", model="virtio")
    _with_text(rng, "backend", "/dev/urandom", model="random")
    if spec.bridge is None:
        _user_network(domain, spec)
    else:
        interface = SubElement(devices, "interface", type="bridge")
        SubElement(interface, "mac", address=spec.mac)
        SubElement(interface, "source", bridge=spec.bridge)
        SubElement(interface, "model", type="virtio")
    return devices


def _bare_devices(domain: Element, console_log: Path) -> Element:
    """A serial console whose output is kept in a file, and nothing that libvirt would add.

    virtlogd writes the file and rotates it, so that a guest cannot fill the node's disk.
    """
    devices = SubElement(domain, "devices")
    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=str(console_log), append="on")
    SubElement(serial, "target", port="0")
    SubElement(devices, "controller", type="usb", model="none")
    return devices


def _disk(devices: Element, disk: Disk, target: str) -> None:
    element = SubElement(devices, "disk", type="file", device="disk")
    driver = SubElement(element, "driver", name="qemu", type=disk.file_format)
    SubElement(element, "source", file=str(disk.path))
    SubElement(element, "target", dev=target, bus="virtio")
    if disk.read_only:
        SubElement(element, "readonly")
        SubElement(element, "shareable")
    else:
        driver.set("discard", "unmap")
    _with_text(element, "serial", disk.serial)
    if disk.alias is not None:
        SubElement(element, "alias", name=disk.alias)


def _user_network(domain: Element, spec: ServerSpec) -> None:
    command_line = SubElement(domain, f"{{{QEMU_NAMESPACE}}}commandline")
    for argument in user_network_arguments(spec.mac, spec.forwards):
        SubElement(command_line, f"{{{QEMU_NAMESPACE}}}arg", value=argument)
