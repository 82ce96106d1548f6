"""Can this installation do its work now? Each part that it needs is asked, all at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import structlog

from managed.domain.errors import ManagedError, MissingRequirement, Unavailable

log = structlog.get_logger()

OK: Final = "ok"
_ASK_SECONDS: Final = 5.0
_FRESH_SECONDS: Final = 2.0

Probe = Callable[[], None]
Found = Mapping[str, str]


class Readiness:
    """Asks for all callers at once and at most every two seconds, so that whoever hammers at it
    costs no more than one. A part that hangs holds one thread, however often it is asked for.
    """

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._threads = ThreadPoolExecutor(max(1, len(probes)), thread_name_prefix="ready")
        self._under_way: dict[str, Future[str]] = {}
        self._asking: asyncio.Task[Found] | None = None
        self._found: Found = {}
        self._fresh_until = 0.0

    async def look(self) -> Found:
        """Each part with "ok", or with what is wrong in words that anybody may read: no address,
        account or detail. Those are in the log.
        """
        if time.monotonic() < self._fresh_until:
            return self._found
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Found:
        asked = {name: asyncio.wrap_future(self._question(name)) for name in self._probes}
        if asked:
            await asyncio.wait(asked.values(), timeout=_ASK_SECONDS)
        found = {
            name: answer.result()
            if answer.done()
            else f"no answer within {_ASK_SECONDS:.0f} seconds"
            for name, answer in asked.items()
        }
        for name, answer in found.items():
            if answer != self._found.get(name, OK):
                log.warning("readiness_changed", part=name, now=answer)
        self._found, self._fresh_until = found, time.monotonic() + _FRESH_SECONDS
        return found

    def _question(self, name: str) -> Future[str]:
        """The one under way, or a new one."""
        present = self._under_way.get(name)
        if present is None or present.done():
            present = self._threads.submit(_answer_of, name, self._probes[name])
            self._under_way[name] = present
        return present


def _answer_of(name: str, probe: Probe) -> str:
    """Of what does not answer only the kind is told: its message has addresses. What is missing
    here was written for this.
    """
    try:
        probe()
    except Unavailable as error:
        log.info("part_is_away", part=name, error=error.code, detail=error.message)
        return error.title
    except MissingRequirement as error:
        log.warning("part_is_wrong", part=name, error=error.code, detail=error.message)
        return error.message
    except ManagedError as error:
        log.warning("part_is_wrong", part=name, error=error.code, detail=error.message)
        return error.title
    except Exception:
        log.exception("probe_defect", part=name)
        return "asking for it failed; the log tells more"
    return OK
