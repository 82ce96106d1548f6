"""Ports for the servers of the embedded service and for what the lab remembers."""

from __future__ import annotations

import random
from pathlib import Path

from managed.domain.errors import Conflict
from managed.drivers.local_ports import FIRST, LAST, port_is_free


def free_port() -> int:
    """A port for a server of the embedded service. Chosen at random, so that two services that
    start at one moment hardly meet.
    """
    for port in random.sample(range(FIRST, LAST + 1), 1000):
        if port_is_free(port):
            return port
    raise Conflict(f"no port from {FIRST} to {LAST} is free on this machine")


def kept_port(path: Path) -> int:
    """The port on record in this file, chosen and written there the first time. For what others
    remember the address of. Conflict when something else listens at that port now.
    """
    try:
        port = int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        port = free_port()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{port}\n", encoding="ascii")
    if not port_is_free(port):
        raise Conflict(
            f"port {port}, on record in {path}, is used by something else",
            hint="Servers made before look there. Stop what listens there; or, when none of them"
            " is needed any more, remove the file, and another port is chosen.",
            port=port,
        )
    return port
