"""The KVM probe's decisions, with a stand-in for libvirt's connection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from managed.drivers.libvirt.acceleration import (
    Situation,
    Verdict,
    probe,
    remember,
    remembered_verdict,
)
from managed.drivers.libvirt.node import LibvirtNode

SITUATION = Situation("qemu:///system", "boot-1", "6.1.0", 7002000)


class Guest:
    """A domain that prints its text at once and then runs until it is destroyed."""

    def __init__(self, log: Path, text: bytes, ends: bool = False) -> None:
        self.active = not ends
        log.write_bytes(text)

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self.active)

    def destroy(self) -> None:
        self.active = False


class Daemon:
    """A connection that offers KVM or not, and starts that guest."""

    def __init__(self, text: bytes, *, kvm: bool = True, ends: bool = False) -> None:
        self.text, self.kvm, self.ends = text, kvm, ends
        self.guests: list[Guest] = []
        self.ending_with_the_connection: list[Guest] = []

    def getCapabilities(self) -> str:  # noqa: N802 - libvirt's name
        return (
            "<capabilities><domain type='kvm'/></capabilities>" if self.kvm else "<capabilities/>"
        )

    def createXML(self, definition: str, flags: int = 0) -> Guest:  # noqa: N802 - libvirt's name
        log = Path(definition.split('<log file="')[1].split('"')[0])
        self.guests.append(Guest(log, self.text, self.ends))
        if flags & libvirt.VIR_DOMAIN_START_AUTODESTROY:
            self.ending_with_the_connection.append(self.guests[-1])
        return self.guests[-1]


@pytest.fixture
def node(tmp_path: Path) -> LibvirtNode:
    for name in ("vmlinux", "vmlinuz", "initrd.img", "root.squashfs"):
        (tmp_path / "images/rescue").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images/rescue" / name).touch()
    return LibvirtNode(
        "test:///default", tmp_path, tmp_path / "images", tmp_path / "c", tmp_path / "s"
    )


def test_a_guest_that_reaches_user_space_proves_kvm(node: LibvirtNode) -> None:
    daemon = Daemon(b"[ 0.9] Run /init as init process\n")
    verdict = probe(daemon, node, time_limit=5)
    assert verdict is not None
    assert verdict.accelerated
    assert [guest.active for guest in daemon.guests] == [False]
    assert list(node.console_dir.iterdir()) == []


def test_a_guest_that_hangs_is_given_up_and_ended(node: LibvirtNode) -> None:
    daemon = Daemon(b"[ 0.0] Linux version\n")
    verdict = probe(daemon, node, time_limit=0.2)
    assert verdict is not None
    assert not verdict.accelerated
    assert "hung" in verdict.evidence
    assert [guest.active for guest in daemon.guests] == [False]


def test_a_killed_probe_leaves_no_guest_behind(node: LibvirtNode) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL: nothing of ours runs any more, libvirt closes the connection."""

    class Unwatched(Guest):
        def isActive(self) -> int:  # noqa: N802 - libvirt's name
            raise Killed

        def destroy(self) -> None:
            raise Killed

    class Host(Daemon):
        def createXML(self, definition: str, flags: int = 0) -> Guest:  # noqa: N802
            guest = super().createXML(definition, flags)
            guest.__class__ = Unwatched
            return guest

    daemon = Host(b"[ 0.0] Linux version\n")
    with pytest.raises(Killed):
        probe(daemon, node, time_limit=5)
    assert daemon.guests
    assert daemon.ending_with_the_connection == daemon.guests


def test_a_guest_that_dies_proves_nothing(node: LibvirtNode) -> None:
    verdict = probe(Daemon(b"", ends=True), node, time_limit=5)
    assert verdict is not None
    assert not verdict.accelerated


def test_no_guest_is_started_where_libvirt_has_no_kvm(node: LibvirtNode) -> None:
    daemon = Daemon(b"", kvm=False)
    verdict = probe(daemon, node)
    assert verdict is not None
    assert not verdict.accelerated
    assert daemon.guests == []


def test_without_a_rescue_image_there_is_no_verdict(node: LibvirtNode) -> None:
    (node.images_dir / "rescue/vmlinuz").unlink()
    assert probe(Daemon(b""), node) is None


def test_a_guest_that_does_not_start_is_a_verdict(node: LibvirtNode) -> None:
    class Refusing(Daemon):
        def createXML(self, definition: str, flags: int = 0) -> Guest:  # noqa: N802 - libvirt's name
            raise libvirt.libvirtError("no")

    verdict = probe(Refusing(b""), node)
    assert verdict is not None
    assert not verdict.accelerated


def test_the_verdict_holds_until_the_node_changes(tmp_path: Path) -> None:
    memory = tmp_path / "state" / "acceleration.json"
    assert remembered_verdict(memory, SITUATION) is None
    remember(memory, SITUATION, Verdict(True, "seen"))
    assert remembered_verdict(memory, SITUATION) == Verdict(True, "seen")
    for changed in (
        replace(SITUATION, boot_id="boot-2"),
        replace(SITUATION, qemu_version=8000000),
        replace(SITUATION, kernel="6.12"),
        replace(SITUATION, uri="qemu:///session"),
    ):
        assert remembered_verdict(memory, changed) is None
    memory.write_text("{")
    assert remembered_verdict(memory, SITUATION) is None
