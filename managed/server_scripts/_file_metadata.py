"""Giving files the properties that a manifest has for them."""

from __future__ import annotations

import errno
import os

from managed.domain.manifests import EntryKind, ManifestEntry


def set_properties(file: bytes | int, entry: ManifestEntry) -> None:
    """Owner, mode, extended attributes and time, in the order in which none undoes another. A path
    is not followed where it is a symlink.
    """
    follow = isinstance(file, int)
    os.chown(file, entry.uid, entry.gid, follow_symlinks=follow)
    if entry.kind is not EntryKind.SYMLINK:
        os.chmod(file, entry.mode)
    _set_attributes(file, dict(entry.xattrs), follow)
    times = (entry.mtime_ns, entry.mtime_ns)
    if follow:
        os.utime(file, ns=times)
    else:
        os.utime(file, ns=times, follow_symlinks=False)


def _set_attributes(file: bytes | int, wanted: dict[str, str], follow: bool) -> None:
    try:
        present = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.ENOTSUP or wanted:
            raise
        return
    for name in set(present) - set(wanted):
        os.removexattr(file, name, follow_symlinks=follow)
    for name, value in wanted.items():
        os.setxattr(file, name, bytes.fromhex(value), follow_symlinks=follow)
