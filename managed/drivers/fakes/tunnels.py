"""Tunnels to fake servers. Keeps `Tunnels`' contract; nothing flows through them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from managed.domain.connections import Endpoint
from managed.domain.errors import InvalidInput
from managed.drivers.fakes.shell import FakeShell


@dataclass
class FakeTunnel:
    remote_socket: str
    local_socket: str
    is_open: bool = True

    def cut(self) -> None:
        """The connection is lost."""
        self.is_open = False


class FakeTunnels:
    """`opened` holds every tunnel that ever was, for tests to look at and to cut."""

    def __init__(self, shell: FakeShell) -> None:
        self._shell = shell
        self.opened: list[FakeTunnel] = []

    @contextmanager
    def reverse_socket(
        self, endpoint: Endpoint, remote_socket: str, local_socket: str
    ) -> Iterator[FakeTunnel]:
        for path in (remote_socket, local_socket):
            if not path.startswith("/") or ":" in path:
                raise InvalidInput(f"{path!r} can't be the path of a forwarded socket")
        self._shell.reach(endpoint)
        tunnel = FakeTunnel(remote_socket, local_socket)
        self.opened.append(tunnel)
        try:
            yield tunnel
        finally:
            tunnel.is_open = False
