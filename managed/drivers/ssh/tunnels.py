"""The `Tunnels` port: a Unix socket on the server that leads to one here, through OpenSSH."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

from managed.domain.connections import Endpoint
from managed.domain.errors import CommandFailed, InvalidInput
from managed.drivers.processes import with_parent_death_signal
from managed.drivers.ssh.background import wait_for
from managed.drivers.ssh.failures import unreachable
from managed.drivers.ssh.openssh import failure_of, private_files, reverse_socket_command
from managed.drivers.ssh.shell import SshShell

_SECONDS_TO_OPEN: Final = 45.0
_SECONDS_TO_END: Final = 5.0

# Only a socket is removed: whatever else stands there is not ours, and ssh will say so.
_MAKE_ROOM: Final = """
umask 077
mkdir -p -- "${1%/*}" && chmod 0700 "${1%/*}" || exit 1
if [ -S "$1" ]; then rm -f -- "$1"; fi
"""


@dataclass(frozen=True)
class OpenTunnel:
    """A tunnel for as long as its ssh lives."""

    process: subprocess.Popen[bytes]

    @property
    def is_open(self) -> bool:
        return self.process.poll() is None


class SshTunnels:
    """`Tunnels`. The directory of the remote socket becomes root's alone (0700), so it must be one
    that nobody else uses.
    """

    def __init__(self, shell: SshShell) -> None:
        self._shell = shell

    @contextmanager
    def reverse_socket(
        self, endpoint: Endpoint, remote_socket: str, local_socket: str
    ) -> Iterator[OpenTunnel]:
        for path in (remote_socket, local_socket):
            if not path.startswith("/") or ":" in path:
                raise InvalidInput(f"{path!r} can't be the path of a forwarded socket")
        room = self._shell.run(endpoint, ("sh", "-c", _MAKE_ROOM, "room", remote_socket))
        if room.exit_status != 0:
            raise CommandFailed(
                f"no room for a socket at {remote_socket} on {endpoint.describe()}: {room.stderr}"
            )
        with tempfile.TemporaryFile() as complaints:
            # ssh has read its key when the tunnel is open; the key need not outlive that.
            with private_files(endpoint) as directory:
                command = reverse_socket_command(endpoint, remote_socket, local_socket, directory)
                process = wait_for(_spawn(with_parent_death_signal(command), complaints))
                try:
                    self._wait_for_socket(endpoint, remote_socket, process, complaints)
                except BaseException:
                    _end(process)
                    raise
            try:
                yield OpenTunnel(process)
            finally:
                _end(process)

    def _wait_for_socket(
        self,
        endpoint: Endpoint,
        remote_socket: str,
        process: subprocess.Popen[bytes],
        complaints: IO[bytes],
    ) -> None:
        deadline = time.monotonic() + _SECONDS_TO_OPEN
        while True:
            if process.poll() is not None:
                complaints.seek(0)
                raise failure_of(endpoint, complaints.read().decode(errors="replace"))
            if self._shell.run(endpoint, ("test", "-S", remote_socket)).exit_status == 0:
                return
            if time.monotonic() > deadline:
                raise unreachable(endpoint.describe(), f"no tunnel at {remote_socket} in time")
            time.sleep(0.05)


async def _spawn(command: tuple[str, ...], complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ssh from the background loop's thread: the kernel sends the parent-death signal when
    the thread that started a process ends, and a caller's thread may be a short-lived one.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
