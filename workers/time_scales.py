"""How much longer things take on a node's servers than with KVM: asked of the nodes themselves.

A node may hang, and with it the thread that asks it. So each is asked in a thread of its own, one
at a time, which keeps no process from its end; and who wants to know waits for a while only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Thread
from typing import Final

import structlog

from managed.domain.errors import ManagedError

log = structlog.get_logger()

_WAIT_SECONDS: Final = 10.0
_KEPT_SECONDS: Final = 600.0
_UNKNOWN: Final = 1.0


class TimeScales:
    """For one event loop. `ask` tells the time scale of a node, and may block for ever."""

    def __init__(self, ask: Callable[[str], float]) -> None:
        self._ask = ask
        self._said: dict[str, float] = {}
        self._asking: dict[str, asyncio.Future[None]] = {}
        self._wait_again_at: dict[str, float] = {}

    async def of(self, node_id: str | None) -> float:
        """What the node says, or has said in the last ten minutes. When it does not say it, what it
        said before, or 1.0; then nobody waits for it again for as long. 1.0 without a node.
        """
        if node_id is None:
            return 1.0
        loop = asyncio.get_running_loop()
        if self._wait_again_at.get(node_id, loop.time()) <= loop.time():
            await asyncio.wait([self._answer_of(node_id)], timeout=_WAIT_SECONDS)
            self._wait_again_at[node_id] = loop.time() + _KEPT_SECONDS
        return self._said.get(node_id, _UNKNOWN)

    def _answer_of(self, node_id: str) -> asyncio.Future[None]:
        """Done when the node has been asked; the node is not asked twice at a time."""
        if node_id not in self._asking:
            loop = asyncio.get_running_loop()
            self._asking[node_id] = loop.create_future()
            Thread(target=self._ask_node, args=(node_id, loop), name="node", daemon=True).start()
        return self._asking[node_id]

    def _ask_node(self, node_id: str, loop: asyncio.AbstractEventLoop) -> None:
        said = None
        try:
            said = self._ask(node_id)
        except ManagedError as error:
            log.warning("node_not_asked", node_id=node_id, error=error.code, detail=error.message)
        except Exception:
            log.exception("time_scale_defect", node_id=node_id)
        loop.call_soon_threadsafe(self._answered, node_id, said)

    def _answered(self, node_id: str, said: float | None) -> None:
        if said is not None:
            self._said[node_id] = said
        self._asking.pop(node_id).set_result(None)
