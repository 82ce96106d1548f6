"""TCP ports on this machine's loopback."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Final

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
    """Those that nothing listens on at this moment, lowest first."""
    return (port for port in range(FIRST, LAST + 1) if port_is_free(port))
