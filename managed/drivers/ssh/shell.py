"""Commands and files over SSH: the `RemoteShell` port by asyncssh with held connections."""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Sequence
from typing import Final

import asyncssh

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import CommandFailed, NotFound
from managed.drivers.ssh.background import wait_for
from managed.drivers.ssh.commands import (
    LARGEST_ANSWER,
    NotStarted,
    RawResult,
    remote_command,
    run_on,
)
from managed.drivers.ssh.connections import HOST_KEY_KINDS, ConnectionCache, open_connection
from managed.drivers.ssh.failures import translated, unreachable
from managed.drivers.ssh.keys import public_key_line

_WAIT_FOR_A_HELD_CONNECTION: Final = 10.0
_NO_SUCH_FILE: Final = 44
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_PRINTED_BOOT_ID: Final = re.compile(rb"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\s*\Z")

_READ_FILE: Final = f'[ -e "$1" ] || exit {_NO_SUCH_FILE}; exec cat -- "$1"'
# The size is checked because a lost connection looks like the end of the input to `cat`.
_WRITE_FILE: Final = """
umask 077
new=$(mktemp "$1.XXXXXX") || exit 1
trap 'rm -f -- "$new"' EXIT
cat >"$new" && [ "$(wc -c <"$new")" -eq "$2" ] && chmod "$3" "$new" && sync "$new" &&
mv -fT -- "$new" "$1"
"""


class SshShell:
    """`RemoteShell`, and the same as coroutines for those who ask many servers at once.

    The coroutines run in the background loop only. Safe to share between threads and to use
    after a fork.
    """

    def __init__(self) -> None:
        self._caches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ConnectionCache] = (
            weakref.WeakKeyDictionary()
        )

    def run(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> CommandResult:
        return wait_for(self.run_async(endpoint, command, stdin=stdin, timeout=timeout)).decoded()

    def read_file(
        self, endpoint: Endpoint, path: str, *, limit: int = LARGEST_ANSWER, timeout: float = 600
    ) -> bytes:
        command = ("sh", "-c", _READ_FILE, "read", path)
        result = wait_for(self.run_async(endpoint, command, timeout=timeout, limit=limit))
        if result.exit_status == _NO_SUCH_FILE:
            raise NotFound(f"{endpoint.describe()} has no file {path}", path=path)
        _require_success(endpoint, f"reading {path}", result)
        return result.stdout

    def write_file(self, endpoint: Endpoint, path: str, content: bytes, mode: int) -> None:
        command = ("sh", "-c", _WRITE_FILE, "write", path, str(len(content)), f"{mode:04o}")
        result = wait_for(self.run_async(endpoint, command, stdin=content, timeout=600))
        _require_success(endpoint, f"writing {path}", result)

    def host_key(self, address: str, port: int, *, timeout: float = 10) -> str:
        return wait_for(_shown_host_key(address, port, timeout))

    def boot_id(self, endpoint: Endpoint) -> str:
        return wait_for(self.boot_id_async(endpoint, timeout=30))

    def fresh_login(self, endpoint: Endpoint, *, timeout: float = 60) -> str:
        return wait_for(self._fresh_login(endpoint, timeout))

    async def boot_id_async(self, endpoint: Endpoint, *, timeout: float) -> str:
        result = await self.run_async(endpoint, ("cat", _BOOT_ID), timeout=timeout)
        return _boot_id_in(endpoint, result)

    async def run_async(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
        limit: int = LARGEST_ANSWER,
    ) -> RawResult:
        """`RemoteShell.run` with bytes. When time is up the remote command is killed; more than
        `limit` bytes of output are EvidenceMissing.
        """
        with translated(endpoint.describe()):
            async with asyncio.timeout(timeout):
                return await self._run(endpoint, remote_command(command, timeout), stdin, limit)

    async def _fresh_login(self, endpoint: Endpoint, timeout: float) -> str:
        with translated(endpoint.describe()):
            async with asyncio.timeout(timeout):
                async with await open_connection(endpoint) as connection:
                    command = remote_command(("cat", _BOOT_ID), timeout)
                    result = await run_on(connection, command, b"", None)
        return _boot_id_in(endpoint, result)

    async def _run(self, endpoint: Endpoint, command: str, stdin: bytes, limit: int) -> RawResult:
        """A held connection may be dead without our knowing. As long as it never started the
        command, a new connection may.
        """
        cache = self._cache()
        try:
            async with cache.connection(endpoint) as held:
                patience = _WAIT_FOR_A_HELD_CONNECTION if held.reused else None
                return await run_on(held.connection, command, stdin, patience, limit)
        except NotStarted:
            async with cache.connection(endpoint) as held:
                return await run_on(held.connection, command, stdin, None, limit)

    def _cache(self) -> ConnectionCache:
        return self._caches.setdefault(asyncio.get_running_loop(), ConnectionCache())


async def _shown_host_key(address: str, port: int, timeout: float) -> str:
    name = f"{address}:{port}"
    with translated(name):
        async with asyncio.timeout(timeout):
            key = await asyncssh.get_server_host_key(
                address, port, config=None, server_host_key_algs=HOST_KEY_KINDS
            )
    if key is None:
        raise unreachable(name, "it shows no host key")
    return public_key_line(key)


def _boot_id_in(endpoint: Endpoint, result: RawResult) -> str:
    """The boot id that a command has printed, after what the login shell's start files print."""
    _require_success(endpoint, "reading the boot id", result)
    found = _PRINTED_BOOT_ID.search(result.stdout)
    if found is None:
        said = result.stdout[:200].decode(errors="replace")
        raise CommandFailed(f"{endpoint.describe()} printed no boot id but {said!r}")
    return found[1].decode()


def _require_success(endpoint: Endpoint, what: str, result: RawResult) -> None:
    if result.exit_status != 0:
        said = result.stderr.decode(errors="replace").strip()[-500:]
        raise CommandFailed(
            f"{what} on {endpoint.describe()} failed with status {result.exit_status}: {said}",
            status=result.exit_status,
        )
