"""What the private daemon is started with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from managed.domain.errors import HypervisorUnavailable
from managed.drivers.libvirt.connection import Connection
from managed.lab.libvirtd import (
    SYSTEM_URI,
    accounts_with,
    lab_directories,
    lab_uri,
    namespace_command,
)


def test_missing_accounts_are_added_and_present_ones_kept() -> None:
    wanted = {"root": "x:9:", "kvm": "x:7:"}
    assert accounts_with("root:x:0:\nkvmx:x:1:", wanted) == "root:x:0:\nkvmx:x:1:\nkvm:x:7:\n"


def test_labs_have_sockets_of_their_own_that_are_short_enough(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    one, other = lab_directories(deep), lab_directories(tmp_path / "other")
    assert one.socket != other.socket
    assert len(str(one.runtime / "virtlogd-admin-sock")) < 108
    assert one == lab_directories(deep / ".." / deep.name)


def test_the_namespace_covers_every_directory_of_libvirt(tmp_path: Path) -> None:
    directories = lab_directories(tmp_path)
    command = namespace_command(directories, ("libvirtd", "--x"))
    assert command[:5] == ("unshare", "--mount", "--propagation", "private", "--")
    assert command[-3:] == ("--", "libvirtd", "--x")
    fixed = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
    for path in (*fixed, "/run/libvirt", "/etc/passwd", "/etc/group"):
        ours = Path(command[command.index(path) - 1])
        assert ours.is_relative_to(directories.state) or ours == directories.runtime


def test_the_settings_decide_over_the_address(tmp_path: Path) -> None:
    assert lab_uri(tmp_path, SYSTEM_URI) == SYSTEM_URI
    assert ("socket=" in lab_uri(tmp_path)) == (os.geteuid() == 0)


def test_an_absent_daemon_is_unavailable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    connection = Connection(f"qemu+unix:///system?socket={tmp_path}/none")
    with pytest.raises(HypervisorUnavailable) as raised, connection.use():
        pytest.fail("there is nothing to use")
    assert raised.value.retryable
    assert capfd.readouterr().err == ""
