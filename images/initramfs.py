"""The rescue image's initramfs and kernel files: module order, cpio archive, kernel unpacking."""

from __future__ import annotations

import gzip
import lzma
import posixpath
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from images.errors import ImageError

CPIO_MAGIC = b"070701"
BOOT_FLAG = b"HdrS"


@dataclass(frozen=True)
class Entry:
    """One member of a cpio archive: `mode` includes the file type; a symlink's data is its target.

    device: major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """A directory that everyone may read."""
    return Entry(name, stat.S_IFDIR | 0o755)


def regular_file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """A file with its content."""
    return Entry(name, stat.S_IFREG | mode, data)


def symlink(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def cpio_archive(entries: Sequence[Entry]) -> bytes:
    """A cpio archive in the "newc" form that the kernel unpacks; owner root, time 0."""
    members = [_member(entry, number) for number, entry in enumerate(entries, start=1)]
    members.append(_member(Entry("TRAILER!!!", 0), 0))
    return b"".join(members)


def _member(entry: Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = CPIO_MAGIC + b"".join(b"%08X" % value for value in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def insmod_order(modules_dep: str, built_in: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """The module files to load, dependencies first, as paths below /lib/modules/<release>.

    modules_dep, built_in: content of the kernel's modules.dep and modules.builtin.
    wanted: module names, `-` and `_` alike; names built into the kernel need nothing.
    Raises ImageError for a module that the kernel does not have.
    """
    dependencies: dict[str, list[str]] = {}
    for line in modules_dep.splitlines():
        path, _, needs = line.partition(":")
        dependencies[path] = needs.split()
    by_name = {module_name(path): path for path in dependencies}
    inside = {module_name(path) for path in built_in.split()}
    order: list[str] = []
    for name in wanted:
        normal = name.replace("-", "_")
        if normal in by_name:
            path = by_name[normal]
            # modules.dep lists what a module needs in such a way that the last must come first.
            for needed in (*reversed(dependencies[path]), path):
                if needed not in order:
                    order.append(needed)
        elif normal not in inside:
            raise ImageError(f"The kernel of the rescue image has no module {name}.")
    return tuple(order)


def module_name(path: str) -> str:
    """`kernel/drivers/block/virtio_blk.ko.xz` to `virtio_blk`."""
    return posixpath.basename(path).partition(".")[0].replace("-", "_")


def uncompressed_module(path: Path) -> bytes:
    """A kernel module's content, whether it is stored compressed or not."""
    data = path.read_bytes()
    return _decompressed(data) if path.suffix in {".xz", ".gz", ".zst"} else data


def vmlinux_of(image: bytes) -> bytes:
    """The uncompressed ELF kernel inside a bzImage.

    Layout: Linux's x86 boot protocol (2.08 and later). QEMU can start this file directly through
    its PVH entry point, which spares the guest from unpacking itself.
    Raises ImageError when there is no such kernel inside.
    """
    if image[0x202:0x206] != BOOT_FLAG:
        raise ImageError("The kernel file is not a bzImage.")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    kernel = _decompressed(image[start : start + length])
    if not kernel.startswith(b"\x7fELF"):
        raise ImageError("The kernel inside the bzImage is not an ELF file.")
    return kernel


def _decompressed(data: bytes) -> bytes:
    """Decompress zstd, xz or gzip data, passing over what stands behind its end."""
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    raise ImageError(f"A kernel file is compressed in an unknown way (it starts {data[:6]!r}).")
