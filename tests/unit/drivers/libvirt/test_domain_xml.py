"""Domain definitions, without libvirt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from managed.domain.errors import InvalidInput, MissingRequirement
from managed.domain.secrets import Secret
from managed.domain.servers import PortForward, ServerSpec
from managed.drivers.libvirt.domain_xml import (
    QEMU_NAMESPACE,
    disk_paths,
    interface_names,
    rescue_definition,
    server_definition,
    session_of,
    spec_of,
    user_network_arguments,
)
from managed.drivers.libvirt.node import LibvirtNode, checked_server_id
from managed.ports import RescueBoot

SPEC = ServerSpec(
    server_id="6f0f2c4e-9a53-4f0e-8a38-1d1f0d5a7c11",
    name="web-1",
    vcpus=2,
    memory_mib=1024,
    disk_gib=10,
    disk_serial="srv-8a381d1f0d5a7c11",
    mac="52:54:00:12:34:56",
    forwards=(PortForward(2201, 22), PortForward(8081, 80)),
)


@pytest.fixture
def node(tmp_path: Path) -> LibvirtNode:
    """A node whose images exist (empty), and whose paths need escaping."""
    folder = tmp_path / 'a <b> & "c"'
    for name in ("rescue/vmlinux", "rescue/vmlinuz", "rescue/initrd.img", "rescue/root.squashfs"):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "images/debian-12").mkdir()
    (folder / "images/debian-12/root.squashfs").touch()
    return LibvirtNode(
        uri="test:///default",
        storage_dir=folder / "disks",
        images_dir=folder / "images",
        console_dir=folder / "consoles",
        state_dir=folder / "state",
        rescue_command_line="console=ttyS0 quiet & <odd>",
    )


def rescue(memory_mib: int = 256, image: str | None = None) -> RescueBoot:
    return RescueBoot("session-1", memory_mib, {"key": Secret("very-private")}, image)


def parsed(definition: str) -> ElementTree.Element:
    return ElementTree.fromstring(definition)  # noqa: S314 - we have just written it


def disks_of(definition: str) -> list[tuple[str | None, str | None, bool, str]]:
    """(serial, format, read-only, file name) of each disk in order."""
    found = []
    for disk in parsed(definition).findall("devices/disk"):
        driver, source = disk.find("driver"), disk.find("source")
        assert driver is not None
        assert source is not None
        read_only = disk.find("readonly") is not None
        name = Path(source.get("file", "")).name
        found.append((disk.findtext("serial"), driver.get("type"), read_only, name))
    return found


def test_the_spec_survives_in_the_definition(node: LibvirtNode) -> None:
    odd = replace(SPEC, name="<&\"'>", bridge=None)
    for spec in (SPEC, odd, replace(SPEC, bridge="br0", forwards=())):
        assert spec_of(server_definition(spec, node, accelerated=False)) == spec
        assert spec_of(rescue_definition(spec, rescue(), node, accelerated=False)) == spec


def test_a_foreign_domain_has_no_spec_and_no_session() -> None:
    foreign = "<domain type='kvm'><name>x</name><metadata/></domain>"
    assert spec_of(foreign) is None
    assert session_of(foreign) is None


def test_the_server_boots_from_its_own_disk_and_survives_reboots(node: LibvirtNode) -> None:
    definition = server_definition(SPEC, node, accelerated=False)
    domain = parsed(definition)
    assert domain.findtext("uuid") == SPEC.server_id
    assert domain.findtext("on_reboot") == "restart"
    assert domain.find("os/kernel") is None
    assert domain.find("features/acpi") is not None
    assert domain.find("features/apic") is not None
    assert disks_of(definition) == [(SPEC.disk_serial, "qcow2", False, f"{SPEC.server_id}.qcow2")]
    assert disk_paths(definition) == [node.disk(SPEC.server_id)]
    assert session_of(definition) is None


def test_acceleration_decides_domain_type_and_processor(node: LibvirtNode) -> None:
    for accelerated, kind, mode, model in (
        (True, "kvm", "host-passthrough", None),
        (False, "qemu", "custom", "Westmere"),
    ):
        domain = parsed(server_definition(SPEC, node, accelerated))
        processor = domain.find("cpu")
        assert domain.get("type") == kind
        assert processor is not None
        assert processor.get("mode") == mode
        assert processor.findtext("model") == model


def test_rescue_boots_the_kernel_and_ends_at_reboot(node: LibvirtNode) -> None:
    definition = rescue_definition(SPEC, rescue(image="debian-12"), node, accelerated=False)
    domain = parsed(definition)
    assert domain.findtext("on_reboot") == "destroy"
    assert domain.findtext("os/kernel") == str(node.images_dir / "rescue/vmlinux")
    assert domain.findtext("os/cmdline") == f"{node.rescue_command_line} norandmaps mitigations=off"
    fast = parsed(rescue_definition(SPEC, rescue(image="debian-12"), node, accelerated=True))
    assert fast.findtext("os/cmdline") == node.rescue_command_line
    assert domain.findtext("uuid") == SPEC.server_id
    assert session_of(definition) == "session-1"
    assert disks_of(definition) == [
        (SPEC.disk_serial, "qcow2", False, f"{SPEC.server_id}.qcow2"),
        ("managed-rescue", "raw", True, "root.squashfs"),
        ("managed-config", "raw", True, f"{SPEC.server_id}.rescue-config.raw"),
        ("managed-image", "raw", True, "root.squashfs"),
    ]
    assert "very-private" not in definition


@pytest.mark.parametrize(("asked", "given"), [(256, 1024), (2048, 2048)])
def test_rescue_has_never_less_memory_than_the_server(
    node: LibvirtNode, asked: int, given: int
) -> None:
    definition = rescue_definition(SPEC, rescue(memory_mib=asked), node, accelerated=False)
    assert parsed(definition).findtext("memory") == str(given)


def test_user_mode_network_listens_on_the_loopback_only(node: LibvirtNode) -> None:
    definition = server_definition(SPEC, node, accelerated=False)
    found = parsed(definition).findall(f".//{{{QEMU_NAMESPACE}}}arg")
    arguments = tuple(argument.get("value", "") for argument in found)
    assert arguments == user_network_arguments(SPEC.mac, SPEC.forwards)
    assert arguments[1].count("hostfwd=tcp:127.0.0.1:") == arguments[1].count("hostfwd=") == 2
    assert "hostfwd=tcp:127.0.0.1:2201-:22" in arguments[1]
    assert SPEC.mac in arguments[3]
    assert interface_names(definition) == []


def test_a_bridge_replaces_user_mode_network(node: LibvirtNode) -> None:
    definition = server_definition(replace(SPEC, bridge="br0", forwards=()), node, True)
    domain = parsed(definition)
    source = domain.find("devices/interface[@type='bridge']/source")
    assert source is not None
    assert source.get("bridge") == "br0"
    assert domain.findall(f".//{{{QEMU_NAMESPACE}}}arg") == []


def test_missing_images_and_wrong_names_are_told(node: LibvirtNode) -> None:
    with pytest.raises(MissingRequirement):
        rescue_definition(SPEC, rescue(image="debian-13"), node, accelerated=False)
    for name in ("../debian-12", "", "-x"):
        with pytest.raises(InvalidInput):
            rescue_definition(SPEC, rescue(image=name), node, accelerated=False)
    (node.images_dir / "rescue/initrd.img").unlink()
    with pytest.raises(MissingRequirement):
        rescue_definition(SPEC, rescue(), node, accelerated=False)


@pytest.mark.parametrize("server_id", ["", "../x", SPEC.server_id.upper(), "{" + SPEC.server_id])
def test_only_canonical_uuids_become_file_names(server_id: str) -> None:
    with pytest.raises(InvalidInput):
        checked_server_id(server_id)
    assert checked_server_id(SPEC.server_id) == SPEC.server_id
