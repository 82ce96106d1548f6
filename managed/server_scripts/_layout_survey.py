"""What stands on a running server's disks, and which filesystems a backup of it covers.

Reads /proc, /sys and blkid only: they are on every server. The result is plain JSON in the form
of managed.domain.disk_layout_documents; what could not be laid out again is named in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from managed.domain.swap_files import is_swap_path
from managed.server_scripts._run import ScriptFailed, run_program

SECTOR = 512
LAYOUT_VERSION_WRITTEN = 1
KNOWN_FILESYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "swap")
COVERED_FILESYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "f2fs", "jfs", "zfs")
CONTAINERS = {
    "crypto_LUKS": "is encrypted with LUKS",
    "LVM2_member": "belongs to LVM",
    "linux_raid_member": "belongs to a software RAID",
    "zfs_member": "belongs to ZFS",
    "bcache": "belongs to bcache",
}
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
PASSING_FEATURES = ("needs_recovery", "orphan_present")


class Mount(NamedTuple):
    place: str
    device: str
    root: str
    kind: str
    options: str


def parsed_mounts(mountinfo: str) -> list[Mount]:
    """The lines of /proc/self/mountinfo; of mounts over one place the last one counts."""
    mounts: dict[str, Mount] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(" "), after.split(" ", 2)
        place = _unescaped_place(fields[4])
        mounts[place] = Mount(place, fields[2], fields[3], kind, f"{fields[5]},{options}")
    return list(mounts.values())


def _unescaped_place(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)


def covered_mounts(mounts: list[Mount]) -> list[Mount]:
    """/ and every other local filesystem, each once; not what is mounted from files (loop), bound
    from elsewhere, in memory, or on the network.
    """
    covered: dict[str, Mount] = {}
    for mount in sorted(mounts, key=lambda m: m.place.count("/") if m.place != "/" else 0):
        is_local = mount.kind in COVERED_FILESYSTEMS and not mount.device.startswith("7:")
        bound = mount.kind != "btrfs" and mount.root != "/"
        key = f"{mount.device}{mount.root}"
        if mount.place == "/" or (is_local and not bound and key not in covered):
            covered[key] = mount
    return sorted(covered.values(), key=lambda mount: mount.place)


def parsed_blkid(text: str) -> dict[str, str]:
    """`blkid -o export` as a dict. It writes odd characters as \\xHH or behind a backslash."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: _unescaped_value(value) for key, _, value in pairs if key}


def _unescaped_value(value: str) -> str:
    def plain(found: re.Match[str]) -> str:
        text = found.group(1)
        return chr(int(text[1:], 16)) if len(text) == 3 else text

    return re.sub(r"\\(x[0-9a-fA-F]{2}|.)", plain, value)


def probe(device: str) -> dict[str, str]:
    """What blkid reads from the device itself; empty when it knows nothing there."""
    return parsed_blkid(run_program(("blkid", "-p", "-o", "export", device), accepted=(0, 2)))


class Survey:
    """Reads the layout of the disk that carries /, and what swap files (paths) are on it."""

    def __init__(self, mounts: list[Mount], swap_files: Sequence[str]) -> None:
        self.mounts = covered_mounts(mounts)
        self.swap_files = swap_files
        self.by_device = {mount.device: mount for mount in reversed(self.mounts)}
        self.unsupported: list[str] = []

    def layout(self) -> dict[str, Any]:
        """The layout's JSON; `partitions` is empty when / is on no plain partition."""
        disk = self._root_disk()
        partitions = [] if disk is None else self._partitions(disk)
        self._note_strangers(disk)
        table = probe(f"/dev/{disk.name}") if disk is not None else {}
        swap_files = self.surveyed_swap_files()
        return {
            "version": LAYOUT_VERSION_WRITTEN,
            "table": table.get("PTTYPE", "gpt"),
            "disk_size": SECTOR * int((disk / "size").read_text()) if disk is not None else 0,
            "disk_uuid": _disk_identifier(table),
            "bios": self._boots_by_bios(table, partitions),
            "efi": self.boots_by_efi(partitions, is_booted_by_efi()),
            "unsupported": self.unsupported,
            "partitions": partitions,
            "swap_files": swap_files,
        }

    def _root_disk(self) -> Path | None:
        root = next(mount for mount in self.mounts if mount.place == "/")
        place = _block_directory(root.device)
        if place is not None and (place / "partition").exists():
            return place.parent
        self.unsupported.append(f"/ ({root.kind}) is not on a plain partition of a disk")
        return None

    def _partitions(self, disk: Path) -> list[dict[str, Any]]:
        found = [self._partition(place.parent) for place in disk.glob("*/partition")]
        return sorted(found, key=lambda partition: int(partition["number"]))

    def _partition(self, place: Path) -> dict[str, Any]:
        values = probe(f"/dev/{place.name}")
        flags = int(values.get("PART_ENTRY_FLAGS", "0"), 16)
        is_dos = values.get("PART_ENTRY_SCHEME") == "dos"
        return {
            "number": int((place / "partition").read_text()),
            "start": SECTOR * int(values["PART_ENTRY_OFFSET"]),
            "size": SECTOR * int(values["PART_ENTRY_SIZE"]),
            "type": values["PART_ENTRY_TYPE"].removeprefix("0x")
            if is_dos
            else values["PART_ENTRY_TYPE"].upper(),
            "uuid": values.get("PART_ENTRY_UUID", ""),
            "name": values.get("PART_ENTRY_NAME", ""),
            "attributes": 0 if is_dos else flags,
            "bootable": is_dos and bool(flags & 0x80),
            "filesystem": self._filesystem(place, values),
        }

    def _filesystem(self, place: Path, values: dict[str, str]) -> dict[str, Any] | None:
        kind, name = values.get("TYPE", ""), f"/dev/{place.name}"
        mount = self.by_device.get((place / "dev").read_text().strip())
        if kind in CONTAINERS:
            self.unsupported.append(f"{name} {CONTAINERS[kind]}")
            return None
        if kind not in KNOWN_FILESYSTEMS:
            if mount is not None:
                self.unsupported.append(f"{name} holds {kind or 'an unknown filesystem'}")
            return None
        if mount is not None and mount.root != "/":
            self.unsupported.append(f"{name} is btrfs with subvolumes")
        return {
            "kind": kind,
            "uuid": values.get("UUID", ""),
            "label": values.get("LABEL", ""),
            "mount_point": mount.place if mount is not None else "",
            "mount_options": mount.options if mount is not None else "",
            "features": ext_features(name) if kind.startswith("ext") else [],
        }

    def _note_strangers(self, disk: Path | None) -> None:
        """Covered filesystems that are not on the disk of /: only their files are backed up."""
        for mount in self.mounts:
            place = _block_directory(mount.device)
            if mount.place != "/" and (place is None or disk is None or place.parent != disk):
                self.unsupported.append(f"{mount.place} is not on the same disk as /")

    def surveyed_swap_files(self) -> list[dict[str, Any]]:
        """What is needed to make them again; what can't be is noted."""
        found = []
        for path in self.swap_files:
            if not is_swap_path(path) or not os.path.isfile(path):
                self.unsupported.append(f"the swap file {path!r} can't be made again")
                continue
            values = probe(path)
            uuid, label = values.get("UUID", ""), values.get("LABEL", "")
            size = os.stat(path).st_size
            found.append({"path": path, "size": size, "uuid": uuid, "label": label})
        return found

    def boots_by_efi(self, partitions: list[dict[str, Any]], is_booted_so: bool) -> bool:
        """Whether boot loaders for EFI stand where backups see them. Where nothing boots from it,
        an EFI system partition that is mounted nowhere does no harm.
        """
        systems = [p for p in partitions if p["type"].lower() == EFI_SYSTEM]
        mounted = [p for p in systems if p["filesystem"] and p["filesystem"]["mount_point"]]
        if not mounted and is_booted_so:
            self.unsupported.append("the EFI system partition that it boots from is not mounted")
        return bool(mounted)

    def _boots_by_bios(self, table: dict[str, str], partitions: list[dict[str, Any]]) -> bool:
        has_core = Path("/boot/grub/i386-pc/core.img").exists()
        reserved = any(p["type"].lower() == BIOS_BOOT for p in partitions)
        return has_core and (reserved or table.get("PTTYPE") == "dos")


def _disk_identifier(table: dict[str, str]) -> str:
    identifier = table.get("PTUUID", "")
    return f"0x{identifier}" if identifier and table.get("PTTYPE") == "dos" else identifier


def _block_directory(device: str) -> Path | None:
    """/sys's directory of a block device given as "major:minor"; None for others."""
    link = Path("/sys/dev/block") / device
    return link.resolve() if link.exists() else None


def ext_features(device: str) -> list[str]:
    """The features that an ext filesystem was made with; empty when they can't be read."""
    try:
        text = run_program(("dumpe2fs", "-h", device))
    except ScriptFailed:
        return []
    line = next((x for x in text.splitlines() if x.startswith("Filesystem features:")), ":")
    words = line.partition(":")[2].split()
    return [w for w in words if w not in PASSING_FEATURES and not w.startswith("FEATURE_")]


def swap_paths(proc_swaps: str) -> list[str]:
    """Files (not partitions) that are in use as swap, from the text of /proc/swaps."""
    rows = [line.split() for line in proc_swaps.splitlines()[1:]]
    paths = [_unescaped_place(row[0]) for row in rows if row[1] == "file"]
    return [path for path in paths if not path.endswith(" (deleted)")]


def is_booted_by_efi() -> bool:
    return Path("/sys/firmware/efi").exists()


def system_facts() -> dict[str, Any]:
    """What helps people who read the record later."""
    release = Path("/etc/os-release")
    return {
        "hostname": os.uname().nodename,
        "kernel": os.uname().release,
        "booted_by": "efi" if is_booted_by_efi() else "bios",
        "os_release": release.read_text(encoding="utf-8") if release.exists() else "",
        "fstab": Path("/etc/fstab").read_text(encoding="utf-8", errors="replace")
        if Path("/etc/fstab").exists()
        else "",
    }
