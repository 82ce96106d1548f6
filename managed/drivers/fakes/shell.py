"""Servers that exist in memory only, and a shell that reaches them. Keeps `RemoteShell`'s contract.

A fake server knows a handful of commands (`cat`, `printf %s`, `true`, `false`, `sleep`) and those
that a test teaches it; its files are a dict.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import NotFound
from managed.domain.secrets import Secret
from managed.drivers.ssh.commands import LARGEST_ANSWER
from managed.drivers.ssh.failures import host_key_changed, login_refused, too_large, unreachable

Command = Callable[[Sequence[str], bytes], CommandResult]
"""Takes argv and standard input."""


def _new_boot_id() -> str:
    return str(uuid.uuid4())


@dataclass
class FakeServer:
    """What stands at one address. `hangs` and `is_up` are for tests to change; so are `files`
    (path to content) and `commands` (program name to what it does).
    """

    host_key: str
    accepted_key: Secret
    is_up: bool = True
    hangs: bool = False
    boot_id: str = field(default_factory=_new_boot_id)
    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)

    def reboot(self) -> None:
        self.boot_id = _new_boot_id()

    def execute(self, argv: Sequence[str], stdin: bytes) -> CommandResult:
        program = argv[0]
        if program in self.commands:
            return self.commands[program](argv, stdin)
        if program == "cat" and len(argv) == 1:
            return CommandResult(0, stdin.decode(errors="replace"), "")
        if program == "printf" and len(argv) == 3 and argv[1] == "%s":
            return CommandResult(0, argv[2], "")
        if program in ("true", "false"):
            return CommandResult(0 if program == "true" else 1, "", "")
        return CommandResult(127, "", f"{program}: not found\n")


class FakeShell:
    """`RemoteShell` over fake servers, found by address and port."""

    def __init__(self) -> None:
        self.servers: dict[tuple[str, int], FakeServer] = {}

    def add(self, address: str, port: int, server: FakeServer) -> FakeServer:
        self.servers[(address, port)] = server
        return server

    def reach(self, endpoint: Endpoint) -> FakeServer:
        """The server behind the endpoint, if it lets us in; raises as the port says."""
        name = endpoint.describe()
        server = self._answering(endpoint.address, endpoint.port, name)
        if server.host_key != endpoint.host_key:
            raise host_key_changed(name)
        if server.accepted_key != endpoint.private_key:
            raise login_refused(name)
        return server

    def run(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> CommandResult:
        server = self.reach(endpoint)
        if command[0] == "sleep":
            if float(command[1]) > timeout:
                raise unreachable(endpoint.describe(), "time is up")
            return CommandResult(0, "", "")
        return server.execute(command, stdin)

    def read_file(
        self, endpoint: Endpoint, path: str, *, limit: int = LARGEST_ANSWER, timeout: float = 600
    ) -> bytes:
        files = self.reach(endpoint).files
        if path not in files:
            raise NotFound(f"{endpoint.describe()} has no file {path}", path=path)
        if len(files[path]) > limit:
            raise too_large(endpoint.describe(), limit)
        return files[path]

    def write_file(self, endpoint: Endpoint, path: str, content: bytes, mode: int) -> None:
        server = self.reach(endpoint)
        server.files[path] = content
        server.modes[path] = mode

    def host_key(self, address: str, port: int, *, timeout: float = 10) -> str:
        return self._answering(address, port, f"{address}:{port}").host_key

    def boot_id(self, endpoint: Endpoint) -> str:
        return self.reach(endpoint).boot_id

    def fresh_login(self, endpoint: Endpoint, *, timeout: float = 60) -> str:
        return self.boot_id(endpoint)

    def _answering(self, address: str, port: int, name: str) -> FakeServer:
        server = self.servers.get((address, port))
        if server is None or not server.is_up:
            raise unreachable(name, "connection refused")
        if server.hangs:
            raise unreachable(name, "time is up")
        return server
