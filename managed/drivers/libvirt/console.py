"""What a serial console printed: a log that virtlogd rotates to `<name>.0`, `<name>.1`, …

virtlogd is root and makes a log that nobody else can read, but goes on with one that is there. So
each power-on begins one of ours; a guest that prints more than virtlogd's `max_size` afterwards
makes it root's again, until the next power-on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def begin_log(log: Path) -> None:
    """An empty log that this process can read; what was there becomes its rotated part. One in
    which nothing stands is gone on with: a power-on that is tried again loses no earlier output.
    """
    if os.access(log, os.R_OK) and log.stat().st_size == 0:
        return
    with suppress(FileNotFoundError):
        log.rename(_rotated(log))
    log.touch(mode=0o600, exist_ok=False)


def last_bytes(log: Path, size: int) -> bytes:
    """The last `size` bytes over the log and its most recently rotated part; empty when none."""
    tail = _tail(log, size)
    if len(tail) < size:
        tail = _tail(_rotated(log), size - len(tail)) + tail
    return tail


def _rotated(log: Path) -> Path:
    return log.with_name(log.name + ".0")


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - size))
            return stream.read(size)
    except FileNotFoundError:
        return b""
