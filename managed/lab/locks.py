"""Files that one process holds at a time, with its id in them. A lock ends with its process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from managed.domain.errors import Conflict


@contextmanager
def only_holder(path: Path, what: str, hint: str) -> Iterator[None]:
    """Hold the file; Conflict when another process does, which is `what` ("a service uses /x")."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            process = file.read().strip() or "unknown"
            raise Conflict(f"{what} (process {process})", hint=hint) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
        file.truncate(0)


def holder(path: Path) -> int | None:
    """The process that holds the file now; None when nobody does, whatever stands in it."""
    try:
        file = path.open()
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = file.read().strip()
            return int(text) if text.isdecimal() else None
    return None
