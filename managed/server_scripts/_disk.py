"""A server's own disk inside a rescue session: found by serial, partitioned, formatted, mounted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from managed.domain.disk_layout_documents import is_extended
from managed.domain.disk_layouts import (
    EXT4_FEATURES,
    DiskLayout,
    Filesystem,
    FilesystemKind,
    Partition,
    sfdisk_script,
)
from managed.server_scripts._run import ScriptFailed, run_program, say

TARGET = Path("/mnt/target")
SECONDS_FOR_DEVICES = 30.0
WIPED_BYTES = 1024 * 1024
VFAT_OPTIONS = (
    *("umask=", "fmask=", "dmask=", "uid=", "gid="),
    *("codepage=", "iocharset=", "shortname=", "utf8"),
)


def disk_with_serial(serial: str) -> Path:
    """The device of the disk with this serial, for example /dev/vdb; ScriptFailed if none."""
    for file in sorted(Path("/sys/block").glob("*/serial")):
        if file.read_text(encoding="ascii", errors="replace").strip() == serial:
            return Path("/dev") / file.parent.name
    raise ScriptFailed(f"no disk has the serial {serial}", "not-found")


def disk_size(disk: Path) -> int:
    """In bytes."""
    sectors = (Path("/sys/block") / disk.name / "size").read_text(encoding="ascii")
    return int(sectors) * 512


def partition_device(disk: Path, number: int) -> Path:
    """/dev/vda1, or /dev/nvme0n1p1 where the disk's name ends with a digit."""
    return disk.with_name(f"{disk.name}{'p' if disk.name[-1].isdigit() else ''}{number}")


def release_disk(disk: Path) -> None:
    """Undo what an earlier try, interrupted anywhere, may have left: mounts, swap, LVM, RAID."""
    unmount_below(TARGET)
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    for device, place in (line.split(" ")[:2] for line in reversed(mounts.splitlines())):
        if device.startswith(str(disk)):
            run_program(("umount", _unescaped(place)))
    for line in Path("/proc/swaps").read_text(encoding="ascii").splitlines()[1:]:
        if line.startswith(str(disk)):
            run_program(("swapoff", line.split()[0]))
    holders = Path("/sys/block") / disk.name
    if any(holders.glob("holders/*")) or any(holders.glob(f"{disk.name}*/holders/*")):
        run_program(("vgchange", "--activate", "n"))
        run_program(("mdadm", "--stop", "--scan"))


def _unescaped(place: str) -> str:
    return place.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def unmount_below(place: Path) -> None:
    """Unmount everything at and below a place, newest first."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    places = [_unescaped(line.split(" ")[1]) for line in mounts.splitlines()]
    for mounted in reversed(places):
        if mounted == str(place) or mounted.startswith(f"{place}/"):
            run_program(("umount", mounted))


def partition_disk(disk: Path, layout: DiskLayout) -> None:
    """Replace whatever is on the disk by the layout's partitions, without content."""
    run_program(("wipefs", "--all", "--force", str(disk)))
    _wipe_ends(disk)
    sector = int((Path("/sys/block") / disk.name / "queue/logical_block_size").read_text())
    script = sfdisk_script(layout, sector)
    options = ("--wipe", "always", "--wipe-partitions", "always", "--no-tell-kernel", "--no-reread")
    run_program(("sfdisk", *options, str(disk)), stdin=script)
    _reread_partitions(disk)
    _wait_for(partition_device(disk, partition.number) for partition in layout.partitions)


def _wipe_ends(disk: Path) -> None:
    """Zero the first and last MiB: boot code, both partition tables, RAID superblocks."""
    with disk.open("r+b", buffering=0) as file:
        file.write(bytes(WIPED_BYTES))
        file.seek(-WIPED_BYTES, os.SEEK_END)
        file.write(bytes(WIPED_BYTES))
        os.fsync(file.fileno())


def _reread_partitions(disk: Path) -> None:
    """Show the new partitions to the kernel, which refuses while udev still looks at the old."""
    deadline = time.monotonic() + SECONDS_FOR_DEVICES
    while True:
        try:
            run_program(("blockdev", "--rereadpt", str(disk)))
            return
        except ScriptFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _wait_for(devices: Iterable[Path]) -> None:
    deadline = time.monotonic() + SECONDS_FOR_DEVICES
    for device in devices:
        while not device.is_block_device():
            if time.monotonic() > deadline:
                raise ScriptFailed(f"the kernel does not show {device}")
            time.sleep(0.05)


def make_filesystems(disk: Path, layout: DiskLayout) -> None:
    """Format every partition that has a filesystem, with its UUID and label."""
    for partition in layout.partitions:
        if partition.filesystem is not None and not is_extended(partition, layout.table):
            device = partition_device(disk, partition.number)
            say(f"formatting {device} as {partition.filesystem.kind.value}")
            run_program(format_command(partition.filesystem, str(device)))


def format_command(files: Filesystem, device: str) -> tuple[str, ...]:
    """The mkfs or mkswap argv. Newer features than the server's GRUB may know are left out."""
    kind = files.kind
    if kind is FilesystemKind.SWAP:
        label = ("--label", files.label) if files.label else ()
        return ("mkswap", "--uuid", files.uuid, *label, device)
    if kind is FilesystemKind.VFAT:
        label = ("-n", files.label) if files.label else ()
        return ("mkfs.vfat", "-i", files.uuid.replace("-", ""), *label, device)
    label = ("-L", files.label) if files.label else ()
    if kind is FilesystemKind.XFS:
        return ("mkfs.xfs", "-f", "-m", f"uuid={files.uuid}", "-i", "nrext64=0", *label, device)
    if kind is FilesystemKind.BTRFS:
        return ("mkfs.btrfs", "-f", "-U", files.uuid, *label, device)
    command: tuple[str, ...] = (f"mkfs.{kind.value}", "-q", "-F", "-U", files.uuid, *label)
    features = files.features or (EXT4_FEATURES if kind is FilesystemKind.EXT4 else ())
    if features:
        command += ("-O", ",".join(("none", *features)))
    return (*command, "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", device)


def mount_layout(disk: Path, layout: DiskLayout) -> None:
    """Mount all at /mnt/target as it is on the server, outer filesystems first."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for partition in layout.mounted:
        if partition.filesystem is not None:
            _mount(disk, partition, partition.filesystem)


def _mount(disk: Path, partition: Partition, files: Filesystem) -> None:
    place = TARGET / files.mount_point.lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    device = str(partition_device(disk, partition.number))
    options = mount_options(files)
    run_program(("mount", "-t", files.kind.value, "-o", options, device, str(place)))


def mount_options(files: Filesystem) -> str:
    """The options that decide how files look; those for the server's own use are left out."""
    kept = [option for option in files.mount_options.split(",") if option.startswith(VFAT_OPTIONS)]
    return ",".join(["rw", "noatime", *(kept if files.kind is FilesystemKind.VFAT else ())])
