"""The `Transfers` port: much data into a command on a server, through OpenSSH, which moves it
faster than asyncssh.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from threading import Thread, Timer
from typing import IO, Final

from managed.domain.connections import CommandResult, Endpoint
from managed.drivers.processes import with_parent_death_signal
from managed.drivers.ssh.background import wait_for
from managed.drivers.ssh.commands import remote_command
from managed.drivers.ssh.failures import unreachable
from managed.drivers.ssh.openssh import failure_of, fed_command, private_files

_SSH_FAILED: Final = 255
_LONGEST_COMPLAINT: Final = 4096
_READ_SECONDS: Final = 10.0


class SshTransfers:
    def send(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        chunks: Iterable[bytes],
        *,
        timeout: float,
    ) -> CommandResult:
        bounded = remote_command(command, timeout)
        with private_files(endpoint) as directory:
            argv = with_parent_death_signal(fed_command(endpoint, bounded, directory))
            process = wait_for(_spawn(argv))
            complaints = _Complaints(process.stderr)
            # A server that takes nothing would hold us for ever: then ssh is ended from here.
            too_long = Timer(timeout, process.kill)
            too_long.start()
            try:
                if process.stdin is not None:
                    _feed(process.stdin, chunks)
                status = process.wait()
            finally:
                is_in_time = not too_long.finished.is_set()
                too_long.cancel()
                _end(process)
            said = complaints.text()
        if not is_in_time:
            raise unreachable(endpoint.describe(), "time is up")
        if status in (_SSH_FAILED, -9):
            raise failure_of(endpoint, said)
        return CommandResult(status, "", said)


def _feed(pipe: IO[bytes], chunks: Iterable[bytes]) -> None:
    """A command that has ended takes no more; how it ended tells why."""
    with suppress(BrokenPipeError):
        for chunk in chunks:
            pipe.write(chunk)
        pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """ssh first: closed before, its input would look complete to the command."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


class _Complaints:
    """What a command says on standard error: read to its end, and the beginning of it kept. The
    server decides how much that is.
    """

    def __init__(self, pipe: IO[bytes] | None) -> None:
        self._kept = b""
        self._reading = Thread(target=self._read, args=(pipe,), daemon=True)
        self._reading.start()

    def _read(self, pipe: IO[bytes] | None) -> None:
        if pipe is None:
            return
        with pipe:
            while piece := pipe.read(_LONGEST_COMPLAINT):
                self._kept += piece[: _LONGEST_COMPLAINT - len(self._kept)]

    def text(self) -> str:
        """After the command's end."""
        self._reading.join(_READ_SECONDS)
        return self._kept.decode(errors="replace")


async def _spawn(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start ssh from the background loop's thread: see SshTunnels."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
