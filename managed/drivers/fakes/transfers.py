"""Transfers to fake servers. Keeps `Transfers`' contract: a command gets all that was fed to it, or
never hears of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from managed.domain.connections import CommandResult, Endpoint
from managed.drivers.fakes.shell import FakeShell


class FakeTransfers:
    def __init__(self, shell: FakeShell) -> None:
        self._shell = shell

    def send(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        chunks: Iterable[bytes],
        *,
        timeout: float,
    ) -> CommandResult:
        self._shell.reach(endpoint)
        return self._shell.run(endpoint, command, stdin=b"".join(chunks), timeout=timeout)
