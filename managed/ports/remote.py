"""What is done on a server over SSH: commands, detached runs, questions, tunnels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.runs import RunReport, RunRequest


class RemoteShell(Protocol):
    """Commands over SSH with pinned host keys; nothing is ever trusted on first use."""

    def run(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> CommandResult:
        """Run an argv (quoted for the remote shell) and wait. A non-zero exit is a result.

        Raises ServerUnreachable (no connection, timeout), HostKeyChanged, LoginRefused.
        """
        ...

    def read_file(
        self, endpoint: Endpoint, path: str, *, limit: int = 2**26, timeout: float = 600
    ) -> bytes:
        """The content of a remote file; NotFound when there is none, EvidenceMissing when it has
        more than `limit` bytes (the server decides what comes, and we keep no more than that).
        """
        ...

    def write_file(self, endpoint: Endpoint, path: str, content: bytes, mode: int) -> None:
        """Replace a remote file in one step (temporary name, mode first, rename)."""
        ...

    def host_key(self, address: str, port: int, *, timeout: float = 10) -> str:
        """The host key line (ed25519 if offered) that the server shows, without trusting it."""
        ...

    def boot_id(self, endpoint: Endpoint) -> str:
        """/proc/sys/kernel/random/boot_id of the running system; the cheapest proof of a login."""
        ...

    def fresh_login(self, endpoint: Endpoint, *, timeout: float = 60) -> str:
        """As `boot_id`, over a new connection that is closed after: proof that one can get in now,
        which a connection held since before a change is not.
        """
        ...


@dataclass(frozen=True)
class RunDelivery:
    """What somebody else (a playbook) needs to start a run: the runner's path on the server and
    its source, and the request as the runner reads it from its standard input.
    """

    runner_path: str
    runner_source: str
    request: str


class DetachedRuns(Protocol):
    """Long work on servers; see managed.domain.runs."""

    def delivery(self, request: RunRequest) -> RunDelivery:
        """For a start that does not go through `start`; InvalidInput for requests with secrets."""
        ...

    def start(self, endpoint: Endpoint, request: RunRequest) -> None:
        """Claim the run and start it. A run id that is claimed already is left as it is."""
        ...

    def look(self, endpoint: Endpoint, run_id: str, offset: int) -> RunReport:
        """The run's state and what it printed from `offset` on (64 KiB at most per look)."""
        ...

    def stop(self, endpoint: Endpoint, run_id: str) -> None:
        """End the run's processes (TERM, then KILL); ended is fine. Its record stays."""
        ...

    def forget(self, endpoint: Endpoint, run_id: str) -> None:
        """Remove the record of an ended run; absent is fine; Conflict while it runs."""
        ...


class Polls(Protocol):
    """Short questions for many servers at once, as coroutines of the SSH driver's event loop.

    A server that does not answer within `timeout` raises ServerUnreachable and delays no other.
    """

    async def look(
        self, endpoint: Endpoint, run_id: str, offset: int, *, timeout: float
    ) -> RunReport:
        """As DetachedRuns.look."""
        ...

    async def boot_id(self, endpoint: Endpoint, *, timeout: float) -> str:
        """As RemoteShell.boot_id."""
        ...

    async def run(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        limit: int,
    ) -> CommandResult:
        """As RemoteShell.run; EvidenceMissing when the command prints more than `limit` bytes (of
        many servers each decides how much comes).
        """
        ...


class Tunnels(Protocol):
    def reverse_socket(
        self, endpoint: Endpoint, remote_socket: str, local_socket: str
    ) -> AbstractContextManager[TunnelHandle]:
        """Forward a Unix socket on the server back to one here, through OpenSSH.

        A stale socket at `remote_socket` is removed first; the remote socket is only root's.
        The ssh process dies with the one that opened it.
        """
        ...


class Transfers(Protocol):
    def send(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        chunks: Iterable[bytes],
        *,
        timeout: float,
    ) -> CommandResult:
        """Run an argv on the server and feed it what comes, however much; how it ended is a result,
        its errors in `stderr`.

        What `chunks` raises cuts the command off and goes on. A command that ends early is fed no
        more. Raises as RemoteShell.run; ServerUnreachable too when time is up.
        """
        ...


class TunnelHandle(Protocol):
    @property
    def is_open(self) -> bool: ...
