"""Module order, the cpio archive, and the kernel inside a bzImage."""

import struct
import subprocess
from pathlib import Path

import pytest
import zstandard

from images.errors import ImageError
from images.initramfs import (
    cpio_archive,
    directory,
    insmod_order,
    regular_file,
    symlink,
    vmlinux_of,
)

MODULES_DEP = """\
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/char/hw_random/virtio-rng.ko:
"""
BUILT_IN = "kernel/drivers/virtio/virtio_pci.ko\n"


def test_modules_load_after_what_they_need_and_built_in_ones_not_at_all() -> None:
    order = insmod_order(MODULES_DEP, BUILT_IN, ("virtio_pci", "virtio_net", "virtio_rng"))
    assert [Path(path).name for path in order] == [
        "failover.ko",
        "net_failover.ko",
        "virtio_net.ko",
        "virtio-rng.ko",
    ]


def test_a_module_that_the_kernel_lacks_is_an_error() -> None:
    with pytest.raises(ImageError, match="no module squashfs"):
        insmod_order(MODULES_DEP, BUILT_IN, ("squashfs",))


def test_cpio_reads_the_archive_back(tmp_path: Path) -> None:
    archive = cpio_archive(
        [
            directory("bin"),
            regular_file("bin/tool", b"#!/bin/sh\n", 0o755),
            symlink("bin/other", "tool"),
        ]
    )
    subprocess.run(
        ["cpio", "--extract", "--quiet"], input=archive, cwd=tmp_path, check=True, timeout=30
    )
    tool = tmp_path / "bin/tool"
    assert tool.read_bytes() == b"#!/bin/sh\n"
    assert tool.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin/other").readlink() == Path("tool")


def bz_image(payload: bytes) -> bytes:
    header = bytearray(0x400)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", header, 0x248, 16, len(payload))
    return bytes(header) + b"\0" * 16 + payload


def test_the_kernel_inside_a_bzimage_is_found() -> None:
    kernel = b"\x7fELF" + b"kernel" * 100
    size_behind = struct.pack("<I", len(kernel))
    assert vmlinux_of(bz_image(zstandard.compress(kernel) + size_behind)) == kernel


@pytest.mark.parametrize(
    "image", [b"\0" * 2048, bz_image(b"unknown"), bz_image(zstandard.compress(b"x"))]
)
def test_what_is_no_kernel_is_an_error(image: bytes) -> None:
    with pytest.raises(ImageError):
        vmlinux_of(image)
