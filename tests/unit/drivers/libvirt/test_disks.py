"""Disk files and the text that a console left, without libvirt."""

from __future__ import annotations

import io
import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from managed.domain.errors import HypervisorError, InvalidInput
from managed.domain.secrets import Secret
from managed.drivers.libvirt.console import begin_log, last_bytes
from managed.drivers.libvirt.disks import (
    CONFIGURATION_DISK_SIZE,
    configuration_archive,
    create_disk_command,
    create_point_command,
    inspect_disk_command,
    points_in,
    write_configuration_disk,
)
from managed.drivers.libvirt.restore_points import checked_point_name
from managed.ports import RestorePoint


def test_no_command_lets_qemu_guess_a_format() -> None:
    disk = Path("/srv/a,b.qcow2")
    assert create_disk_command(disk, 7)[-4:] == ("-f", "qcow2", "/srv/a,b.qcow2", "7G")
    assert inspect_disk_command(disk)[-3:] == ("-f", "qcow2", "/srv/a,b.qcow2")
    point = create_point_command(disk, "1")
    assert point[point.index("-c") + 1] == "managed-1"
    assert point[-1] == "driver=qcow2,file.driver=file,file.filename=/srv/a,,b.qcow2"


def test_configuration_is_a_private_archive_of_the_disks_size(tmp_path: Path) -> None:
    path = tmp_path / "config.raw"
    path.write_bytes(b"older and readable")
    path.chmod(0o644)
    write_configuration_disk(path, {"key": Secret("k\n"), "authorized_keys": Secret("ä\n")})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == CONFIGURATION_DISK_SIZE
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
        members = {member.name: member for member in archive.getmembers()}
        assert {name: member.mode for name, member in members.items()} == {
            "key": 0o600,
            "authorized_keys": 0o600,
        }
        content = archive.extractfile("authorized_keys")
        assert content is not None
        assert content.read() == "ä\n".encode()


def test_a_configuration_that_does_not_fit_is_refused() -> None:
    with pytest.raises(HypervisorError):
        configuration_archive({"key": Secret("x" * CONFIGURATION_DISK_SIZE)})


def test_only_our_own_snapshots_are_restore_points() -> None:
    image = {
        "snapshots": [
            {"id": "2", "name": "managed-late", "date-sec": 20, "date-nsec": 0},
            {"id": "3", "name": "somebody's", "date-sec": 5, "date-nsec": 0},
            {"id": "1", "name": "managed-1", "date-sec": 10, "date-nsec": 500_000_000},
        ]
    }
    assert points_in(image) == [
        RestorePoint("1", datetime.fromtimestamp(10.5, UTC)),
        RestorePoint("late", datetime.fromtimestamp(20, UTC)),
    ]
    assert points_in({}) == []


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 65])
def test_restore_point_names_are_plain_words(name: str) -> None:
    with pytest.raises(InvalidInput):
        checked_point_name(name)


def test_a_console_is_read_over_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert last_bytes(log, 10) == b""
    log.write_bytes(b"0123456789")
    assert last_bytes(log, 4) == b"6789"
    (tmp_path / "console.log.0").write_bytes(b"older")
    assert last_bytes(log, 12) == b"er0123456789"
    assert last_bytes(log, 100) == b"older0123456789"
    assert last_bytes(log, 0) == b""


def test_each_power_on_has_a_log_that_we_can_read(tmp_path: Path) -> None:
    """virtlogd writes into the file that it finds; one that it makes is root's alone."""
    log = tmp_path / "console.log"
    begin_log(log)
    assert (log.read_bytes(), log.stat().st_mode & 0o777) == (b"", 0o600)
    log.write_bytes(b"first")
    begin_log(log)
    assert log.read_bytes() == b""
    assert last_bytes(log, 100) == b"first"


def test_a_power_on_that_is_tried_again_loses_no_earlier_output(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"kernel panic")
    for _ in range(3):
        begin_log(log)
    assert last_bytes(log, 100) == b"kernel panic"
