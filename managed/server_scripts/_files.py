"""Reading files as a manifest has them: one walk, in tree order, that can be compared."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from managed.domain.manifest_parts import PathSet
from managed.domain.manifests import EntryKind, ManifestEntry
from managed.server_scripts._hashing import sha256

READ_BUFFER = memoryview(bytearray(256 * 1024))
"""One for all files, since getting fresh memory from the kernel costs more than reading most of
them; scripts have one thread.
"""

KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFIFO: EntryKind.FIFO,
    stat.S_IFCHR: EntryKind.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryKind.BLOCK_DEVICE,
}

HashOf = Callable[[bytes, os.stat_result], str]


class ScannedFile(NamedTuple):
    entry: ManifestEntry
    status: os.stat_result


def text_of(path: bytes) -> str:
    """A path's bytes as manifests hold them, whatever the locale is."""
    return path.decode("utf-8", "surrogateescape")


def bytes_of(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


class Excludes:
    """Absolute patterns in which * and ? stand for anything but a slash, as restic reads them.

    A pattern that matches a directory excludes all below it. Other special characters are
    refused, so that both sides certainly mean the same.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        for pattern in patterns:
            if not pattern.startswith("/") or re.search(r"[\[\]\\]|\*\*", pattern):
                raise ValueError(f"{pattern!r} can't be used as an exclude pattern")
        self.patterns = tuple(patterns)
        expressions = [
            re.escape(bytes_of(p)).replace(rb"\*", rb"[^/]*").replace(rb"\?", rb"[^/]")
            for p in patterns
        ]
        self._expression = re.compile(b"|".join(expressions) or rb"(?!)", re.DOTALL)

    def match(self, path: bytes) -> bool:
        return self._expression.fullmatch(path) is not None


def sha256_of(path: bytes) -> str:
    """The file's sha256 in hexadecimal; empty when it can't be read (any more)."""
    digest = sha256()
    try:
        descriptor = _open_untouched(path)
    except OSError:
        return ""
    try:
        while size := os.readv(descriptor, [READ_BUFFER]):
            digest.update(READ_BUFFER[:size])
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return str(digest.hexdigest())


def _open_untouched(path: bytes) -> int:
    """Open for reading without changing the access time, and never through a symlink."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


def xattrs_of(path: bytes) -> tuple[tuple[str, str], ...]:
    """All extended attributes: name and hexadecimal value, sorted; ACLs and capabilities too."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        pairs = [(name, os.getxattr(path, name, follow_symlinks=False).hex()) for name in names]
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOENT, errno.ENODATA):
            return ()
        raise
    return tuple(sorted(pairs))


class TreeScan:
    """Walks a tree in tree order and yields every path that a backup of it covers.

    `root` is where the tree's "/" is (b"/" on a server, b"/mnt/target" in a rescue session).
    `mount_points` are the paths in the tree, "/" among them, below which other filesystems
    belong to it; directories where anything else is mounted are yielded, but not entered, and
    single files that are mounts are left out: restic's --one-file-system does the same.
    `hash_of` gives a file's sha256 or an empty text. With `part` it yields only what that covers,
    and the directories that lead to it.
    """

    def __init__(
        self,
        root: bytes,
        mount_points: Sequence[str],
        excludes: Excludes,
        hash_of: HashOf,
        part: PathSet | None = None,
    ) -> None:
        self.prefix = b"" if root == b"/" else root
        self.mount_points = frozenset(bytes_of(point) for point in mount_points)
        self.excludes = excludes
        self.hash_of = hash_of
        self.part = part
        self.first_names: dict[tuple[int, int], str] = {}

    def files(self) -> Iterator[ScannedFile]:
        status = os.lstat(self.prefix or b"/")
        yield self._scanned(b"/", status)
        yield from self._below(b"", status.st_dev)

    def _below(self, directory: bytes, device: int) -> Iterator[ScannedFile]:
        """Everything below the directory ("" for the root), which is on this device."""
        for name in self._names(directory):
            path = directory + b"/" + name
            if self.excludes.match(path) or not self._is_wanted(path):
                continue
            try:
                status = os.lstat(self.prefix + path)
            except FileNotFoundError:
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            foreign = status.st_dev != device and path not in self.mount_points
            if stat.S_ISSOCK(status.st_mode) or (foreign and not is_directory):
                continue
            yield self._scanned(path, status)
            if is_directory and not foreign:
                yield from self._below(path, status.st_dev)

    def _is_wanted(self, path: bytes) -> bool:
        if self.part is None:
            return True
        text = text_of(path)
        return self.part.covers(text) or self.part.leads_to(text)

    def _names(self, directory: bytes) -> list[bytes]:
        try:
            return sorted(os.listdir(self.prefix + directory or b"/"))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _scanned(self, path: bytes, status: os.stat_result) -> ScannedFile:
        place = self.prefix + path
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        is_file = kind is EntryKind.FILE
        device = None
        if kind in (EntryKind.CHARACTER_DEVICE, EntryKind.BLOCK_DEVICE):
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        entry = ManifestEntry(
            path=text_of(path),
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=status.st_size if is_file else 0,
            sha256=self.hash_of(place, status) if is_file else "",
            xattrs=xattrs_of(place),
            target=_target_of(place) if kind is EntryKind.SYMLINK else "",
            hard_link=self._first_name(path, status, kind),
            device=device,
        )
        return ScannedFile(entry, status)

    def _first_name(self, path: bytes, status: os.stat_result, kind: EntryKind) -> str:
        """The first path of the same inode, or "" when this one is the first. Files only: what else
        has several names (after `cp -al` symlinks do) restic restores as so many.
        """
        if status.st_nlink < 2 or kind is not EntryKind.FILE:
            return ""
        name = text_of(path)
        first = self.first_names.setdefault((status.st_dev, status.st_ino), name)
        return "" if first == name else first


def _target_of(path: bytes) -> str:
    try:
        return text_of(os.readlink(path))
    except FileNotFoundError:
        return ""


class HashOnce:
    """Reads a file again only when its inode has changed since it was read last.

    The kernel moves an inode's change time on every write and every change of its metadata, and
    gives nobody a way to set it.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], tuple[int, str]] = {}

    def __call__(self, path: bytes, status: os.stat_result) -> str:
        inode = (status.st_dev, status.st_ino)
        change, digest = self.known.get(inode, (0, ""))
        if change != status.st_ctime_ns or not digest:
            digest = sha256_of(path)
            self.known[inode] = (status.st_ctime_ns, digest)
        return digest


def signature(status: os.stat_result) -> list[int]:
    """What changes when a file does."""
    return [status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size]
