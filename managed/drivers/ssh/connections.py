"""Held SSH connections: one per endpoint, opened when needed, closed when idle or at any error.

A new connection costs some 20 ms of CPU, a command on a held one less than 1 ms: who polls many
servers every second must hold them. All of this runs in one event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import asyncssh

from managed.domain.connections import Endpoint

Key = tuple[str, int, str, str, str]

RSA_KINDS: Final = ("rsa-sha2-512", "rsa-sha2-256")
HOST_KEY_KINDS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    *RSA_KINDS,
)

_IDLE_SECONDS: Final = 60.0
_KEEPALIVE_SECONDS: Final = 5.0
# sshd allows ten sessions on one connection (MaxSessions); leave room for leftovers being closed.
_SESSIONS: Final = 8


@dataclass(eq=False)
class Held:
    """A connection, how many use it, and when it was last used (loop time)."""

    connection: asyncssh.SSHClientConnection
    reused: bool = False
    users: int = 0
    last_used: float = 0.0
    failed: bool = False
    sessions: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_SESSIONS))


class ConnectionCache:
    """Connections by endpoint, address and pinned key included: a changed pin is another entry."""

    def __init__(self) -> None:
        self._held: dict[Key, Held] = {}
        self._opening: dict[Key, asyncio.Lock] = {}
        self._sweeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def connection(self, endpoint: Endpoint) -> AsyncIterator[Held]:
        """A connection for the time of one command. Any exception within drops it for all who come
        after; who uses it at the moment may go on. Raises what asyncssh and sockets raise.
        """
        key = _key(endpoint)
        held = await self._acquire(key, endpoint)
        held.users += 1
        try:
            async with held.sessions:
                yield held
        except BaseException:
            held.failed = True
            raise
        finally:
            held.users -= 1
            held.last_used = asyncio.get_running_loop().time()
            if held.failed:
                self._drop(key, held)

    async def _acquire(self, key: Key, endpoint: Endpoint) -> Held:
        lock = self._opening.setdefault(key, asyncio.Lock())
        async with lock:
            held = self._held.get(key)
            if held is not None and not held.failed and not held.connection.is_closed():
                held.reused = True
                return held
            held = Held(await open_connection(endpoint))
            self._held[key] = held
            if self._sweeper is None or self._sweeper.done():
                self._sweeper = asyncio.create_task(self._sweep())
            return held

    def _drop(self, key: Key, held: Held) -> None:
        if self._held.get(key) is held:
            del self._held[key]
        if held.users == 0:
            held.connection.abort()

    async def _sweep(self) -> None:
        """Close what nobody used for a while; ends when nothing is held."""
        while self._held:
            await asyncio.sleep(_IDLE_SECONDS / 4)
            oldest = asyncio.get_running_loop().time() - _IDLE_SECONDS
            for key, held in list(self._held.items()):
                if held.users == 0 and held.last_used < oldest:
                    del self._held[key]
                    held.connection.close()
            for key in [key for key in self._opening if key not in self._held]:
                if not self._opening[key].locked():
                    del self._opening[key]


async def open_connection(endpoint: Endpoint) -> asyncssh.SSHClientConnection:
    """Connect, accept the pinned host key alone, log in with the given key alone."""
    pinned = asyncssh.import_public_key(endpoint.host_key)
    login = asyncssh.import_private_key(endpoint.private_key.reveal())
    return await asyncssh.connect(
        endpoint.address,
        endpoint.port,
        username=endpoint.user,
        config=None,
        known_hosts=([pinned], [], []),
        server_host_key_algs=_kinds_offered(pinned),
        client_keys=[login],
        agent_path=None,
        preferred_auth="publickey",
        keepalive_interval=_KEEPALIVE_SECONDS,
        keepalive_count_max=3,
        compression_algs=None,
    )


def _kinds_offered(pinned: asyncssh.SSHKey) -> list[str]:
    """The pinned key's kind first; the others only so that a server which has lost that kind shows
    what it has, and is refused for it.
    """
    algorithm = pinned.get_algorithm()
    first = RSA_KINDS if algorithm == "ssh-rsa" else (algorithm,)
    return [*first, *(kind for kind in HOST_KEY_KINDS if kind not in first)]


def _key(endpoint: Endpoint) -> Key:
    login = hashlib.sha256(endpoint.private_key.reveal().encode()).hexdigest()
    return (endpoint.address, endpoint.port, endpoint.user, endpoint.host_key, login)
