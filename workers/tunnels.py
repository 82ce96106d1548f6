"""The reverse tunnels that runs need while they talk to the backup gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from managed.domain.errors import ManagedError
from managed.ports import TunnelHandle
from managed.workflows.parts.gateway_socket import GATEWAY_SOCKET
from managed.workflows.world import World

log = structlog.get_logger()

A = TypeVar("A")
B = TypeVar("B")


@dataclass
class _Held:
    tunnel: AbstractContextManager[TunnelHandle]
    handle: TunnelHandle


class HeldTunnels:
    """One tunnel per server that needs one; a lost one is opened again at the same path.

    ssh processes die with the thread that started them, so the threads here live as long as this.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="tunnel")
        self._held: dict[str, _Held] = {}

    async def ensure(self, server_id: str) -> None:
        """Have an open tunnel to the server; raises what opening it raises."""
        held = self._held.get(server_id)
        if held is not None and held.handle.is_open:
            return
        await self._drop(server_id)
        self._held[server_id] = await self._in_thread(self._open, server_id)
        log.info("tunnel_opened", server_id=server_id)

    async def keep_only(self, server_ids: set[str]) -> None:
        """Close the tunnels of all other servers."""
        for server_id in set(self._held) - server_ids:
            await self._drop(server_id)

    async def close(self) -> None:
        await self.keep_only(set())
        self._threads.shutdown()

    async def _drop(self, server_id: str) -> None:
        held = self._held.pop(server_id, None)
        if held is not None:
            await self._in_thread(self._close, held)

    def _open(self, server_id: str) -> _Held:
        world = self._world
        tunnel = world.tunnels.reverse_socket(
            world.endpoint(server_id), GATEWAY_SOCKET, world.gateway.socket()
        )
        return _Held(tunnel, tunnel.__enter__())

    def _close(self, held: _Held) -> None:
        try:
            held.tunnel.__exit__(None, None, None)
        except ManagedError as error:
            log.warning("tunnel_not_closed", error=error.code)

    async def _in_thread(self, work: Callable[[A], B], argument: A) -> B:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, argument)
