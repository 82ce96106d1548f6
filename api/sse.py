"""Event streams: any number of followers, one question to the database per beat for all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.dependencies import Services
from api.schemas import EventView
from managed.domain.errors import ManagedError
from managed.domain.events import Event
from managed.storage.following import JobProgress, progress_of

log = structlog.get_logger()

BEAT_SECONDS: Final = 0.5
PING_SECONDS: Final = 15
_LONGEST_SECONDS = 600.0
_PAGE: Final = 1000


@dataclass
class _Channel:
    """Those who follow one job. `changed` is replaced with every change that it told of."""

    followers: int = 0
    progress: JobProgress | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Followers:
    """Looks after the progress of every followed job. Lives in the event loop of the API."""

    def __init__(self, services: Services, beat: float = BEAT_SECONDS) -> None:
        self._services = services
        self._beat = beat
        self._channels: dict[str, _Channel] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled; asks nothing while nobody follows."""
        while True:
            if self._channels:
                try:
                    await self._look()
                except ManagedError as error:
                    log.warning("followers_wait", error=error.code)
                except Exception:
                    # Every stream hangs on this loop: a defect must not end it.
                    log.exception("followers_defect")
            await asyncio.sleep(self._beat)

    @contextmanager
    def following(self, job_id: str) -> Iterator[_Channel]:
        channel = self._channels.setdefault(job_id, _Channel())
        channel.followers += 1
        try:
            yield channel
        finally:
            channel.followers -= 1
            if channel.followers == 0:
                del self._channels[job_id]

    async def _look(self) -> None:
        found = await asyncio.to_thread(progress_of, self._services.database, tuple(self._channels))
        for job_id, progress in found.items():
            channel = self._channels.get(job_id)
            if channel is not None and channel.progress != progress:
                channel.progress = progress
                channel.changed.set()
                channel.changed = asyncio.Event()


def event_stream(
    services: Services, followers: Followers, job_id: str, position: int
) -> EventSourceResponse:
    """Every event of the job after `position`, then those to come; closes after its last one, and
    now and then before: who reads on asks anew, and is asked for the token anew.
    """

    async def messages() -> AsyncIterator[bytes]:
        async for page in pages_of_job(services, followers, job_id, position, _LONGEST_SECONDS):
            yield await asyncio.to_thread(encoded, page, _message)

    return stream_of(messages())


def stream_of(messages: AsyncIterator[bytes]) -> EventSourceResponse:
    """An answer that sends these, and now and then a comment, so that nobody takes it for dead."""
    return EventSourceResponse(
        messages,
        ping=PING_SECONDS,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def pages_of_job(
    services: Services,
    followers: Followers,
    job_id: str,
    position: int,
    longest: float | None = None,
) -> AsyncIterator[Sequence[Event]]:
    """Every event of the job after `position`, then those to come, as many at once as there are.
    Ends after its last one, or when after `longest` seconds nothing is there to be told.
    """
    ends_at = None if longest is None else asyncio.get_running_loop().time() + longest
    with followers.following(job_id) as channel:
        while True:
            changed, progress = channel.changed, channel.progress
            while progress is not None and position < progress.last_seq:
                page = await asyncio.to_thread(services.events.after, job_id, position, _PAGE)
                if not page:
                    break
                yield page
                position = page[-1].seq
            if progress is not None and progress.is_final:
                return
            try:
                async with asyncio.timeout_at(ends_at):
                    await changed.wait()
            except TimeoutError:
                return


def encoded(page: Sequence[Event], message: Callable[[Event], ServerSentEvent]) -> bytes:
    """As one piece: what a server spends on each piece is more than the event itself costs."""
    return b"".join(message(event).encode() for event in page)


def _message(event: Event) -> ServerSentEvent:
    """ASCII only: readers differ in which Unicode characters end a line for them."""
    view = EventView.of(event).model_dump(mode="json")
    return ServerSentEvent(id=str(event.seq), event=event.type, data=json.dumps(view))
