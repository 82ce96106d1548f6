"""Swap files of a restored system, made anew."""

from __future__ import annotations

import os
from pathlib import Path

from managed.domain.swap_files import SwapFile
from managed.server_scripts._run import ScriptFailed, run_program, say


def make_swap_file(root: Path, wanted: SwapFile) -> None:
    """Make an empty swap file of this size and identity in the tree at `root`. The times of its
    folder stay. ScriptFailed when something is in its place, or its folder is not in the tree.
    """
    place = root / wanted.path.lstrip("/")
    folder = place.parent
    if not folder.is_dir() or folder.resolve() != folder:
        raise ScriptFailed(f"there is no folder for the swap file {wanted.path!r}", "invalid-input")
    say(f"making the swap file {wanted.path!r}, {wanted.size} bytes")
    before = folder.stat()
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise ScriptFailed(f"{wanted.path!r} is in the way of the swap file") from error
    try:
        _forbid_copies(place)
        os.posix_fallocate(descriptor, 0, wanted.size)
    except OSError as error:
        raise ScriptFailed(f"there is no room for {wanted.path!r}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    identity = ("--uuid", wanted.uuid) if wanted.uuid else ()
    label = ("--label", wanted.label) if wanted.label else ()
    run_program(("mkswap", *identity, *label, str(place)))
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def _forbid_copies(place: Path) -> None:
    """btrfs swaps to files only that it does not copy on write; other filesystems never do, and
    refuse.
    """
    run_program(("chattr", "+C", str(place)), accepted=(0, 1))
