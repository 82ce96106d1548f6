"""Ending this machine's servers, with libvirt's own test driver for libvirt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from managed.domain.errors import HypervisorUnavailable
from managed.lab.local_node import end_local_servers
from managed.lab.locks import holder, only_holder
from managed.settings import Settings

URI = "test:///default"


@pytest.fixture
def driver() -> Iterator[libvirt.virConnect]:
    """Its domains live as long as somebody is connected."""
    connection = libvirt.open(URI)
    yield connection
    connection.close()


def domain_xml(name: str, disk: Path) -> str:
    return (
        f"<domain type='test'><name>{name}</name><memory>1024</memory>"
        "<os><type>hvm</type></os><devices><disk type='file'>"
        f"<source file='{disk}'/><target dev='vda'/></disk></devices></domain>"
    )


def test_servers_on_an_address_of_the_settings_are_ended_and_named(
    tmp_path: Path, driver: libvirt.virConnect
) -> None:
    settings = Settings(state_dir=tmp_path, libvirt_uri=URI)
    disks = tmp_path / "servers"
    disks.mkdir()
    driver.createXML(domain_xml("ours", disks / "one" / "disk.qcow2"))
    other = driver.createXML(domain_xml("another", Path("/srv/elsewhere/disk.qcow2")))
    assert end_local_servers(settings) == ["ours"]
    assert "ours" not in [domain.name() for domain in driver.listAllDomains()]
    assert other.isActive()
    assert end_local_servers(settings) == []


def test_a_libvirt_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    uri = f"qemu+unix:///system?socket={tmp_path}/none"
    with pytest.raises(HypervisorUnavailable):
        end_local_servers(Settings(state_dir=tmp_path, libvirt_uri=uri))


def test_without_a_disk_there_is_nothing_to_end(tmp_path: Path) -> None:
    uri = f"qemu+unix:///system?socket={tmp_path}/none"
    assert end_local_servers(Settings(state_dir=tmp_path, libvirt_uri=uri)) == []


def test_a_lock_is_held_by_who_holds_it_and_not_by_who_is_written_there(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    with only_holder(path, "somebody is at work", hint=""):
        assert holder(path) is not None
    path.write_text("1\n")
    assert holder(path) is None
