"""One remote command on an open connection: input in, output and exit status out."""

from __future__ import annotations

import asyncio
import math
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncssh

from managed.domain.connections import CommandResult

LARGEST_ANSWER: Final = 2**26
"""Bytes that a command may print, if nothing else is said."""

_GRACE_SECONDS: Final = 1


@dataclass(frozen=True)
class RawResult:
    """How a remote command ended, with its output as it came."""

    exit_status: int
    stdout: bytes
    stderr: bytes

    def decoded(self) -> CommandResult:
        return CommandResult(
            self.exit_status,
            self.stdout.decode(errors="replace"),
            self.stderr.decode(errors="replace"),
        )


class NotStarted(Exception):
    """The connection failed before the server could have started the command."""


class TooMuchOutput(Exception):
    """The command printed more than `limit` bytes and was given up."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes of output")
        self.limit = limit


def remote_command(command: Sequence[str], timeout: float) -> str:
    """The argv, quoted for the remote shell. sshd lets commands outlive their connection, so the
    server itself ends what has outlived our patience.
    """
    patience = math.ceil(timeout) + _GRACE_SECONDS
    return shlex.join(("timeout", "--signal=KILL", str(patience), *command))


async def run_on(
    connection: asyncssh.SSHClientConnection,
    command: str,
    stdin: bytes,
    open_timeout: float | None,
    limit: int = LARGEST_ANSWER,
) -> RawResult:
    """Run a command line and wait for its end.

    Raises NotStarted when no channel could be opened within `open_timeout` seconds, TooMuchOutput
    when more than `limit` bytes came, else what asyncssh raises; ConnectionLost when it ended
    without an exit status.
    """
    session = _Session(limit)
    try:
        async with asyncio.timeout(open_timeout) as opening:
            channel, _ = await connection.create_session(
                lambda: session.opened_within(opening), command, encoding=None
            )
    except (asyncssh.Error, OSError, TimeoutError) as error:
        if session.is_open:
            raise
        raise NotStarted(str(error)) from error
    try:
        channel.write(stdin)
        channel.write_eof()
        await session.ended
    except BrokenPipeError:
        await session.ended
    finally:
        channel.close()
    if session.has_too_much:
        raise TooMuchOutput(limit)
    if session.exit_status is None:
        raise asyncssh.ConnectionLost("the connection was lost while the command ran")
    return RawResult(session.exit_status, bytes(session.output), bytes(session.errors))


class _Session(asyncssh.SSHClientSession[bytes]):
    """Collects what a command prints, up to a limit. Once its channel is open the command may
    have started.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.has_too_much = False
        self._channel: Any = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.output = bytearray()
        self.errors = bytearray()
        self.exit_status: int | None = None
        self.is_open = False
        self._opening: asyncio.Timeout | None = None

    def opened_within(self, opening: asyncio.Timeout) -> _Session:
        self._opening = opening
        return self

    def connection_made(self, chan: Any) -> None:
        self.is_open = True
        self._channel = chan
        if self._opening is not None:
            self._opening.reschedule(None)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self.has_too_much:
            return
        if len(self.output) + len(self.errors) + len(data) > self._limit:
            self.has_too_much = True
            self._channel.abort()
            return
        (self.errors if datatype == asyncssh.EXTENDED_DATA_STDERR else self.output).extend(data)

    def exit_status_received(self, status: int) -> None:
        self.exit_status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.exit_status = 128 + _signal_number(signal)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def _signal_number(name: str) -> int:
    try:
        return signal.Signals[f"SIG{name}"]
    except KeyError:
        return 0
