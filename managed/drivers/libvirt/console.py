"""What a serial console printed: a log that virtlogd rotates to `<name>.0`, `<name>.1`, …"""

from __future__ import annotations

import os
from pathlib import Path


def last_bytes(log: Path, size: int) -> bytes:
    """The last `size` bytes over the log and its most recently rotated part; empty when none."""
    tail = _tail(log, size)
    if len(tail) < size:
        tail = _tail(log.with_name(log.name + ".0"), size - len(tail)) + tail
    return tail


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - size))
            return stream.read(size)
    except FileNotFoundError:
        return b""
