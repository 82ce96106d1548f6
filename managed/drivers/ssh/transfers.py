"""The `Transfers` port: much data into a command on a server, through OpenSSH, which moves it
faster than asyncssh.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from threading import Timer
from typing import IO, Final

from managed.domain.connections import CommandResult, Endpoint
from managed.drivers.processes import with_parent_death_signal
from managed.drivers.ssh.background import wait_for
from managed.drivers.ssh.commands import remote_command
from managed.drivers.ssh.failures import unreachable
from managed.drivers.ssh.openssh import failure_of, fed_command, private_files

_SSH_FAILED: Final = 255
_LONGEST_COMPLAINT: Final = 4096


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
        with tempfile.TemporaryFile() as complaints, private_files(endpoint) as directory:
            argv = with_parent_death_signal(fed_command(endpoint, bounded, directory))
            process = wait_for(_spawn(argv, complaints))
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
            complaints.seek(0)
            said = complaints.read(_LONGEST_COMPLAINT).decode(errors="replace")
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


async def _spawn(command: tuple[str, ...], complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ssh from the background loop's thread: see SshTunnels."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        start_new_session=True,
    )
