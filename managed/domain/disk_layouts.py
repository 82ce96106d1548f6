"""Disk layouts: what stands on a server's disk, so that it can be laid out again.

Installing and restoring read the same value. Sizes and offsets are in bytes. UUIDs are kept, so
that fstab, the boot loader's configuration and the initramfs stay right after a restore.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from managed.domain.errors import InvalidInput, NotSupported
from managed.domain.swap_files import SwapFile

MEBIBYTE: Final = 1024 * 1024
BIOS_BOOT_TYPE: Final = "21686148-6449-6E6F-744E-656564454649"
EFI_SYSTEM_TYPE: Final = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX_TYPE: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
EXTENDED_TYPES: Final = ("5", "f", "85")
EFI_SYSTEM_SIZE: Final = 128 * MEBIBYTE
MINIMUM_DISK: Final = 2048 * MEBIBYTE
EXT4_FEATURES: Final = (
    "has_journal",
    "ext_attr",
    "resize_inode",
    "dir_index",
    "filetype",
    "extent",
    "64bit",
    "flex_bg",
    "sparse_super",
    "large_file",
    "huge_file",
    "dir_nlink",
    "extra_isize",
    "metadata_csum",
)
"""What every kernel and GRUB since 2016 reads: a newer mkfs must not decide for an older GRUB."""


class PartitionTable(StrEnum):
    GPT = "gpt"
    DOS = "dos"


class FilesystemKind(StrEnum):
    EXT2 = "ext2"
    EXT3 = "ext3"
    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"
    VFAT = "vfat"
    SWAP = "swap"


@dataclass(frozen=True)
class Filesystem:
    """`mount_point` is empty when nothing is mounted there (swap, unused). `mount_options` are
    those it was mounted with (comma-separated); `features` are ext4's, empty for mkfs's default.
    """

    kind: FilesystemKind
    uuid: str
    label: str = ""
    mount_point: str = ""
    mount_options: str = ""
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Partition:
    """`type` is a GPT type GUID or a DOS type in hexadecimal; `attributes` the GPT attribute bits;
    `bootable` the DOS flag. A partition without `filesystem` keeps no content.
    """

    number: int
    start: int
    size: int
    type: str
    uuid: str = ""
    name: str = ""
    attributes: int = 0
    bootable: bool = False
    filesystem: Filesystem | None = None

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class DiskLayout:
    """One disk. `bios` and `efi` say which ways of booting are to work; `unsupported` says, one
    sentence each, what the disk held that can't be laid out again (LVM, RAID, LUKS…). `swap_files`
    are files in its filesystems that are made anew, because no backup holds them.
    """

    table: PartitionTable
    disk_size: int
    disk_uuid: str
    partitions: tuple[Partition, ...]
    bios: bool
    efi: bool
    unsupported: tuple[str, ...] = ()
    swap_files: tuple[SwapFile, ...] = ()

    @property
    def efi_directory(self) -> str:
        """Where the EFI system partition is mounted; empty when it is nowhere, or EFI is not to
        work.
        """
        points = [
            p.filesystem.mount_point
            for p in self.partitions
            if p.filesystem and p.type.upper() == EFI_SYSTEM_TYPE
        ]
        return next(filter(None, points), "") if self.efi else ""

    @property
    def root(self) -> Partition:
        """The partition that is mounted at /."""
        return next(p for p in self.partitions if p.filesystem and p.filesystem.mount_point == "/")

    @property
    def mounted(self) -> tuple[Partition, ...]:
        """The partitions with a mount point, in the order in which they are mounted."""
        mounted = [p for p in self.partitions if p.filesystem and p.filesystem.mount_point]
        return tuple(
            sorted(mounted, key=lambda p: p.filesystem.mount_point if p.filesystem else "")
        )


def restore_limitation(layout: DiskLayout) -> str | None:
    """Why this layout can't be restored to an empty disk, or None when it can."""
    if layout.unsupported:
        return "; ".join(layout.unsupported)
    if not layout.bios and not layout.efi_directory:
        return "the server boots neither by BIOS nor by EFI in a known way"
    return None


def check_restorable(layout: DiskLayout) -> None:
    """Raise NotSupported when `restore_limitation` finds a reason."""
    reason = restore_limitation(layout)
    if reason:
        raise NotSupported(
            f"This server can't be restored to an empty disk yet: {reason}.",
            hint="Install a fresh system and restore its files from the snapshot.",
        )


def default_layout(disk_size: int, new_uuid: Callable[[], str]) -> DiskLayout:
    """The layout of a new installation, which boots by BIOS and by EFI.

    Raises InvalidInput when the disk is smaller than 2 GiB.
    """
    if disk_size < MINIMUM_DISK:
        raise InvalidInput(
            f"A disk of {disk_size // MEBIBYTE} MiB is too small for an operating system",
            hint="Give it at least 2 GiB.",
            field="disk",
        )
    bios = Partition(1, MEBIBYTE, MEBIBYTE, BIOS_BOOT_TYPE, new_uuid(), "bios-boot")
    efi_files = Filesystem(
        FilesystemKind.VFAT, _short_uuid(new_uuid()), "EFI", "/boot/efi", "rw,umask=0077"
    )
    efi = Partition(
        2, bios.end, EFI_SYSTEM_SIZE, EFI_SYSTEM_TYPE, new_uuid(), "efi", filesystem=efi_files
    )
    root_files = Filesystem(
        FilesystemKind.EXT4,
        new_uuid(),
        "root",
        "/",
        "rw,errors=remount-ro",
        EXT4_FEATURES,
    )
    root = Partition(
        3,
        efi.end,
        _usable_end(disk_size) - efi.end,
        LINUX_TYPE,
        new_uuid(),
        "root",
        filesystem=root_files,
    )
    return DiskLayout(
        PartitionTable.GPT, disk_size, new_uuid(), (bios, efi, root), bios=True, efi=True
    )


def _short_uuid(uuid: str) -> str:
    """A FAT volume id (XXXX-XXXX) made from a UUID."""
    digits = uuid.replace("-", "").upper()
    return f"{digits[:4]}-{digits[4:8]}"


def _usable_end(disk_size: int) -> int:
    """The end of the last whole MiB that leaves room for the second GPT."""
    return (disk_size // MEBIBYTE - 1) * MEBIBYTE


def layout_for_disk(layout: DiskLayout, disk_size: int) -> DiskLayout:
    """The same layout on a disk of `disk_size` bytes: on a larger one / grows by all there is.

    Raises InvalidInput when the partitions don't fit.
    """
    needed = max(p.end for p in layout.partitions)
    if layout.table is PartitionTable.GPT:
        needed += MEBIBYTE if disk_size != layout.disk_size else 0
    if disk_size < needed:
        raise InvalidInput(
            f"The disk has {disk_size // MEBIBYTE} MiB, and the backed-up partitions need "
            f"{-(-needed // MEBIBYTE)} MiB",
            hint="Resize the server's disk to at least that size.",
            field="disk",
        )
    gain = (_usable_end(disk_size) - max(p.end for p in layout.partitions)) // MEBIBYTE * MEBIBYTE
    if disk_size == layout.disk_size or gain <= 0:
        return replace(layout, disk_size=disk_size)
    root = layout.root
    partitions = tuple(_grown(p, root, gain) for p in layout.partitions)
    return replace(layout, disk_size=disk_size, partitions=partitions)


def _grown(partition: Partition, root: Partition, gain: int) -> Partition:
    """`partition` once root (and an extended partition around it) has grown by `gain` bytes."""
    if partition.start >= root.end:
        return replace(partition, start=partition.start + gain)
    if partition == root or partition.end >= root.end:
        return replace(partition, size=partition.size + gain)
    return partition


def sfdisk_script(layout: DiskLayout, sector_size: int = 512) -> str:
    """The layout as sfdisk's input, in sectors of the disk it is written to."""
    lines = [f"label: {layout.table.value}"]
    if layout.disk_uuid:
        lines.append(f"label-id: {layout.disk_uuid}")
    lines += ["unit: sectors", ""]
    for partition in layout.partitions:
        lines.append(_sfdisk_line(partition, layout.table, sector_size))
    return "\n".join(lines) + "\n"


def _sfdisk_line(partition: Partition, table: PartitionTable, sector_size: int) -> str:
    fields = [
        f"start={partition.start // sector_size}",
        f"size={partition.size // sector_size}",
        f"type={partition.type}",
    ]
    if table is PartitionTable.GPT:
        if partition.uuid:
            fields.append(f"uuid={partition.uuid}")
        if partition.name:
            fields.append(f'name="{partition.name}"')
        if partition.attributes:
            fields.append(f'attrs="{_attribute_names(partition.attributes)}"')
    elif partition.bootable:
        fields.append("bootable")
    return f"{partition.number} : " + ", ".join(fields)


def _attribute_names(attributes: int) -> str:
    """GPT attribute bits in sfdisk's words."""
    named = {0: "RequiredPartition", 1: "NoBlockIOProtocol", 2: "LegacyBIOSBootable"}
    bits = [bit for bit in range(64) if attributes >> bit & 1 and (bit in named or bit >= 48)]
    return ",".join(named.get(bit, f"GUID:{bit}") for bit in bits)


def fstab_text(layout: DiskLayout) -> str:
    """The /etc/fstab of a new installation."""
    lines = ["# Filesystems by UUID: device names can change from boot to boot."]
    for partition in layout.mounted:
        files = partition.filesystem
        if files is None:
            continue
        options = ",".join(o for o in files.mount_options.split(",") if o != "rw") or "defaults"
        check = 1 if files.mount_point == "/" else 2
        lines.append(
            f"UUID={files.uuid} {files.mount_point} {files.kind.value} {options} 0 {check}"
        )
    for partition in layout.partitions:
        files = partition.filesystem
        if files is not None and files.kind is FilesystemKind.SWAP:
            lines.append(f"UUID={files.uuid} none swap sw 0 0")
    return "\n".join(lines) + "\n"
