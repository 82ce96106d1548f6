"""Disk layouts: what a new server gets, what a recorded one becomes on another disk."""

from __future__ import annotations

import json
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain.disk_layout_documents import layout_as_json, parsed_layout
from managed.domain.disk_layouts import (
    BIOS_BOOT_TYPE,
    MEBIBYTE,
    DiskLayout,
    Filesystem,
    FilesystemKind,
    Partition,
    PartitionTable,
    check_restorable,
    default_layout,
    fstab_text,
    layout_for_disk,
    restore_limitation,
    sfdisk_script,
)
from managed.domain.errors import InvalidInput, NotSupported
from managed.domain.swap_files import SwapFile

GIBIBYTE = 1024 * MEBIBYTE


def new_layout(size: int = 8 * GIBIBYTE) -> DiskLayout:
    return default_layout(size, lambda: str(uuid.uuid4()))


def old_layout() -> DiskLayout:
    """As Debian's installer makes it on a BIOS machine: root, then swap inside an extended one."""
    root = Filesystem(FilesystemKind.EXT4, str(uuid.uuid4()), "", "/", "rw,relatime")
    swap = Filesystem(FilesystemKind.SWAP, str(uuid.uuid4()))
    size = 8 * GIBIBYTE
    return DiskLayout(
        PartitionTable.DOS,
        size,
        "0x1234abcd",
        (
            Partition(1, MEBIBYTE, 7 * GIBIBYTE, "83", bootable=True, filesystem=root),
            Partition(2, 7 * GIBIBYTE + 2 * MEBIBYTE - 1024, GIBIBYTE - 4 * MEBIBYTE + 1024, "5"),
            Partition(
                5, 7 * GIBIBYTE + 2 * MEBIBYTE, GIBIBYTE - 4 * MEBIBYTE, "82", filesystem=swap
            ),
        ),
        bios=True,
        efi=False,
    )


def test_a_new_server_boots_by_bios_and_by_efi() -> None:
    layout = new_layout()

    assert layout.bios
    assert layout.efi
    assert layout.partitions[0].type == BIOS_BOOT_TYPE
    assert [p.filesystem.mount_point for p in layout.mounted if p.filesystem] == ["/", "/boot/efi"]
    assert restore_limitation(layout) is None


def with_swap_files() -> DiskLayout:
    files = (SwapFile("/swapfile", GIBIBYTE), SwapFile("/var/.swap 2", MEBIBYTE, "ab-cd", "spare"))
    return replace(old_layout(), swap_files=files)


@pytest.mark.parametrize("layout", [new_layout(), old_layout(), with_swap_files()])
def test_layouts_survive_json(layout: DiskLayout) -> None:
    assert parsed_layout(json.loads(json.dumps(layout_as_json(layout)))) == layout


def test_a_layout_from_before_swap_files_were_recorded_is_read() -> None:
    layout = old_layout()
    document = layout_as_json(layout)
    del document["swap_files"]

    assert parsed_layout(document) == layout


def test_efi_needs_its_partition_mounted_and_bios_needs_nothing_of_it() -> None:
    layout = new_layout()
    assert layout.efi_directory == "/boot/efi"

    unmounted = with_efi_at(layout, "")
    assert unmounted.efi_directory == ""
    assert restore_limitation(unmounted) is None
    assert restore_limitation(replace(unmounted, bios=False)) is not None
    elsewhere = replace(with_efi_at(layout, "/efi"), bios=False)
    assert elsewhere.efi_directory == "/efi"
    assert restore_limitation(elsewhere) is None


def with_efi_at(layout: DiskLayout, mount_point: str) -> DiskLayout:
    bios, efi, root = layout.partitions
    assert efi.filesystem is not None
    files = replace(efi.filesystem, mount_point=mount_point)
    return replace(layout, partitions=(bios, replace(efi, filesystem=files), root))


@given(st.integers(2 * GIBIBYTE, 64 * GIBIBYTE), st.integers(0, 64 * GIBIBYTE))
def test_on_a_larger_disk_root_grows_and_nothing_overlaps(size: int, more: int) -> None:
    fitted = layout_for_disk(new_layout(size), size + more)

    assert parsed_layout(layout_as_json(fitted)) == fitted
    assert size + more - fitted.root.end < 2 * MEBIBYTE + MEBIBYTE
    assert size + more - fitted.root.end >= MEBIBYTE


def test_what_stands_behind_root_moves_to_the_new_end() -> None:
    layout = old_layout()
    fitted = layout_for_disk(layout, layout.disk_size + GIBIBYTE)
    root, extended, swap = fitted.partitions
    grown = root.size - layout.partitions[0].size

    assert GIBIBYTE - MEBIBYTE <= grown <= GIBIBYTE + 2 * MEBIBYTE
    assert (extended.start, swap.start) == tuple(p.start + grown for p in layout.partitions[1:])
    assert (extended.size, swap.size) == tuple(p.size for p in layout.partitions[1:])
    assert parsed_layout(layout_as_json(fitted)) == fitted


def test_the_same_disk_gets_exactly_the_recorded_layout() -> None:
    for layout in (new_layout(), old_layout()):
        assert layout_for_disk(layout, layout.disk_size) == layout


def test_too_small_a_disk_is_refused_with_the_size_it_needs() -> None:
    with pytest.raises(InvalidInput, match="8192 MiB") as refusal:
        layout_for_disk(new_layout(), 4 * GIBIBYTE)
    assert "4096 MiB" in refusal.value.message
    with pytest.raises(InvalidInput):
        new_layout(GIBIBYTE)


def test_fstab_names_filesystems_by_uuid_root_first() -> None:
    layout = new_layout()
    lines = fstab_text(layout).splitlines()[1:]

    assert layout.root.filesystem is not None
    assert lines[0] == f"UUID={layout.root.filesystem.uuid} / ext4 errors=remount-ro 0 1"
    assert lines[1].endswith(" /boot/efi vfat umask=0077 0 2")
    assert " none swap sw 0 0" in fstab_text(old_layout())


@pytest.mark.parametrize("layout", [new_layout(), old_layout()])
def test_sfdisk_makes_what_the_layout_says(layout: DiskLayout, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(layout.disk_size)
    argv = ("/usr/sbin/sfdisk", "--no-reread", "--no-tell-kernel", str(disk))
    subprocess.run(argv, input=sfdisk_script(layout).encode(), check=True, capture_output=True)
    dump = ("/usr/sbin/sfdisk", "--json", str(disk))
    made = json_of(subprocess.run(dump, check=True, capture_output=True).stdout)["partitiontable"]

    assert made["label"] == layout.table.value
    assert made["id"].lower() == layout.disk_uuid.lower()
    assert [(p["start"] * 512, p["size"] * 512) for p in made["partitions"]] == [
        (p.start, p.size) for p in layout.partitions
    ]
    if layout.table is PartitionTable.GPT:
        uuids = [p.uuid.upper() for p in layout.partitions]
        assert [p["uuid"] for p in made["partitions"]] == uuids


def json_of(text: bytes) -> Any:
    return json.loads(text)


def test_what_cannot_be_laid_out_again_is_said() -> None:
    layout = replace(new_layout(), unsupported=("/dev/vda3 belongs to LVM",))

    assert parsed_layout(layout_as_json(layout)) == layout
    with pytest.raises(NotSupported, match="LVM"):
        check_restorable(layout)
    with pytest.raises(NotSupported, match="boots"):
        check_restorable(replace(new_layout(), bios=False, efi=False))


HOSTILE_PATHS = (
    *("", "/", "swapfile", "/../etc/swap", "/var/../../swap", "/var/..", "/./swap", "//swap"),
    *("/swap\n", "/swap\0", "/var/", "/latin-\udce9", "/" + "x" * 256, "/long" * 300),
)


def swap_file(path: str = "/swapfile", size: int = MEBIBYTE) -> dict[str, Any]:
    return {"path": path, "size": size, "uuid": "", "label": ""}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("partitions", 2, "filesystem", "mount_point"), "/../etc"),
        (("partitions", 2, "filesystem", "mount_point"), "/srv"),
        (("partitions", 2, "filesystem", "uuid"), "$(reboot)"),
        (("partitions", 2, "filesystem", "label"), "-oops"),
        (("partitions", 2, "filesystem", "mount_options"), "rw exec"),
        (("partitions", 2, "filesystem", "features"), ["a b"]),
        (("partitions", 2, "filesystem", "kind"), "zfs"),
        (("partitions", 2, "name"), 'x"\nlabel: dos'),
        (("partitions", 2, "start"), MEBIBYTE),
        (("partitions", 2, "start"), -512),
        (("partitions", 2, "size"), 1 << 60),
        (("partitions", 2, "size"), 1000),
        (("partitions", 2, "number"), 1),
        (("partitions", 2, "type"), "83\n"),
        (("disk_uuid",), "x\nunit: bytes"),
        (("partitions",), []),
        (("partitions",), None),
        (("table",), "mac"),
        (("version",), 2),
        (("swap_files",), None),
        (("swap_files",), [{"path": "/swapfile"}]),
        (("swap_files",), [swap_file()] * 2),
        (("swap_files",), [swap_file(f"/{number}") for number in range(33)]),
        *((("swap_files",), [swap_file(path)]) for path in HOSTILE_PATHS),
        *((("swap_files",), [swap_file(size=size)]) for size in (0, -1, 9 * GIBIBYTE)),
        (("swap_files",), [swap_file("/one", 5 * GIBIBYTE), swap_file("/two", 5 * GIBIBYTE)]),
        (("swap_files",), [{**swap_file(), "uuid": "$(reboot)"}]),
        (("swap_files",), [{**swap_file(), "label": "-oops"}]),
    ],
)
def test_layouts_that_contradict_themselves_or_look_hostile_are_refused(
    place: tuple[Any, ...], value: Any
) -> None:
    document: Any = layout_as_json(new_layout())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value

    with pytest.raises(InvalidInput):
        parsed_layout(document)
