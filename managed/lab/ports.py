"""TCP ports on this machine's loopback."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from managed.domain.errors import Conflict

# Below the range from which Linux takes ports for outgoing connections, and below 32768, above
# which apt-cacher-ng cannot listen (3.7.4: "Error resolving address for binding").
FIRST: Final = 20_000
LAST: Final = 29_999


def port_is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Can a server listen there now? OSError for an address that is not this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def free_ports() -> Iterator[int]:
    """Ports for servers of the lab that nothing listens on at this moment, lowest first."""
    return (port for port in range(FIRST, LAST + 1) if port_is_free(port))


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
