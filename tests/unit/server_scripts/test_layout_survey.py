"""What a backup covers and what is recorded of disks, from what Linux prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from managed.domain.disk_layouts import EXT4_FEATURES, Filesystem, FilesystemKind
from managed.server_scripts._disk import format_command, mount_options, partition_device
from managed.server_scripts._layout_survey import (
    EFI_SYSTEM,
    Survey,
    covered_mounts,
    parsed_blkid,
    parsed_mounts,
)

MOUNTINFO = """\
22 27 0:20 / /sys rw,nosuid - sysfs sysfs rw
23 27 0:21 / /proc rw - proc proc rw
27 1 254:3 / / rw,relatime shared:1 - ext4 /dev/vda3 rw,errors=remount-ro
30 27 0:24 / /run rw,nosuid - tmpfs tmpfs rw,size=99536k
40 27 254:2 / /boot/efi rw,relatime - vfat /dev/vda2 rw,fmask=0077
41 27 254:17 / /srv/with\\040space rw - xfs /dev/vdb1 rw
42 27 254:3 /var/data /mnt/bound rw - ext4 /dev/vda3 rw
43 27 254:17 / /mnt/again/deeper/still rw - xfs /dev/vdb1 rw
44 27 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
45 27 7:2 / /mnt/image rw - ext4 /dev/loop2 rw
46 27 0:50 / /net rw - nfs4 host:/export rw
47 27 0:51 / /var/lib/docker/overlay rw - overlay overlay rw
"""


def test_local_filesystems_are_covered_once_each() -> None:
    covered = covered_mounts(parsed_mounts(MOUNTINFO))

    assert [mount.place for mount in covered] == ["/", "/boot/efi", "/srv/with space"]
    assert covered[0].options == "rw,relatime,rw,errors=remount-ro"


def test_a_root_in_memory_is_covered_all_the_same() -> None:
    covered = covered_mounts(parsed_mounts("1 0 0:9 / / rw - overlay overlay rw"))

    assert [mount.place for mount in covered] == ["/"]


def test_blkids_odd_characters_are_read() -> None:
    text = "DEVNAME=/dev/vda1\nPART_ENTRY_NAME=EFI\\x20System\nLABEL=my\\ disk\nTYPE=ext4\n"

    assert parsed_blkid(text) == {
        "DEVNAME": "/dev/vda1",
        "PART_ENTRY_NAME": "EFI System",
        "LABEL": "my disk",
        "TYPE": "ext4",
    }


def test_filesystems_are_made_with_the_recorded_identity() -> None:
    root = Filesystem(FilesystemKind.EXT4, "u-u-i-d", "root", "/", "rw", ("extent", "64bit"))
    command = format_command(root, "/dev/vda3")

    assert command[-1] == "/dev/vda3"
    assert command[3:5] == ("-U", "u-u-i-d")
    assert "none,extent,64bit" in command
    unknown = format_command(Filesystem(FilesystemKind.EXT4, "u"), "/dev/vda3")
    assert ",".join(("none", *EXT4_FEATURES)) in unknown
    efi = format_command(Filesystem(FilesystemKind.VFAT, "ABCD-0123", "EFI"), "/dev/vda2")
    assert efi == ("mkfs.vfat", "-i", "ABCD0123", "-n", "EFI", "/dev/vda2")
    swap = format_command(Filesystem(FilesystemKind.SWAP, "u"), "/dev/vda5")
    assert swap == ("mkswap", "--uuid", "u", "/dev/vda5")


def test_only_options_that_change_how_files_look_are_used_for_mounting() -> None:
    efi = Filesystem(
        FilesystemKind.VFAT, "A", "", "/boot/efi", "ro,fmask=0077,utf8,errors=remount-ro"
    )
    root = Filesystem(FilesystemKind.EXT4, "A", "", "/", "ro,quota,uid=3")

    assert mount_options(efi) == "rw,noatime,fmask=0077,utf8"
    assert mount_options(root) == "rw,noatime"


def test_partitions_of_disks_that_end_with_a_digit() -> None:
    assert partition_device(Path("/dev/vdb"), 3) == Path("/dev/vdb3")
    assert partition_device(Path("/dev/nvme0n1"), 3) == Path("/dev/nvme0n1p3")


@pytest.mark.parametrize(
    ("mount_point", "is_booted_so", "boots", "limitations"),
    [
        ("/boot/efi", True, True, 0),
        ("/efi", False, True, 0),
        ("", True, False, 1),
        ("", False, False, 0),
        (None, False, False, 0),
    ],
)
def test_efi_counts_where_its_partition_is_mounted(
    mount_point: str | None, is_booted_so: bool, boots: bool, limitations: int
) -> None:
    files = None if mount_point is None else {"mount_point": mount_point}
    root = {"type": "linux", "filesystem": {"mount_point": "/"}}
    survey = Survey([], [])

    partitions = [root, {"type": EFI_SYSTEM.upper(), "filesystem": files}]
    assert survey.boots_by_efi(partitions, is_booted_so) is boots
    assert len(survey.unsupported) == limitations
