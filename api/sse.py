"""Event streams: any number of followers, one question to the database per beat for all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.auth import Admission
from api.dependencies import Services
from api.schemas import EventView
from managed.domain.errors import ManagedError
from managed.domain.events import Event
from managed.storage.following import JobProgress, progress_of

log = structlog.get_logger()

BEAT_SECONDS: Final = 0.5
# docs/guides/access.md names a bound on streams of those who are out; this has to stay well below.
LOOK_AGAIN_SECONDS: Final = 5.0
PING_SECONDS: Final = 15
_LONGEST_SECONDS = 600.0
_PAGE: Final = 1000


@dataclass
class _Channel:
    """Those who follow one job. `changed` is replaced with every change that it told of."""

    followers: int = 0
    progress: JobProgress | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass
class _Reader:
    """All streams of one token or session: it is looked at once for all of them."""

    admission: Admission
    streams: int = 0
    is_out: bool = False


class Followers:
    """Looks after the progress of every followed job, and whether those who follow still may.
    Lives in the event loop of the API.
    """

    def __init__(self, services: Services, beat: float = BEAT_SECONDS) -> None:
        self._services = services
        self._beat = beat
        self._channels: dict[str, _Channel] = {}
        self._readers: dict[str, _Reader] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled; asks nothing while nobody follows. Events do not
        wait while many readers are looked at.
        """
        async with asyncio.TaskGroup() as both:
            both.create_task(self._repeat(self._look, self._beat))
            both.create_task(self._repeat(self._look_at_readers, LOOK_AGAIN_SECONDS))

    async def _repeat(self, look: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            if self._channels:
                try:
                    await look()
                except ManagedError as error:
                    log.warning("followers_wait", error=error.code)
                except Exception:
                    # Every stream hangs on this loop: a defect must not end it.
                    log.exception("followers_defect")
            await asyncio.sleep(pause)

    @contextmanager
    def following(self, job_id: str, admission: Admission) -> Iterator[tuple[_Channel, _Reader]]:
        channel = self._channels.setdefault(job_id, _Channel())
        reader = self._readers.setdefault(admission.key, _Reader(admission))
        channel.followers += 1
        reader.streams += 1
        try:
            yield channel, reader
        finally:
            channel.followers -= 1
            if channel.followers == 0:
                del self._channels[job_id]
            reader.streams -= 1
            if reader.streams == 0 and not reader.is_out:
                del self._readers[admission.key]

    async def _look(self) -> None:
        found = await asyncio.to_thread(progress_of, self._services.database, tuple(self._channels))
        for job_id, progress in found.items():
            channel = self._channels.get(job_id)
            if channel is not None and channel.progress != progress:
                channel.progress = progress
                channel.wake()

    async def _look_at_readers(self) -> None:
        present = tuple(self._readers.items())
        out = await asyncio.to_thread(
            lambda: [(key, reader) for key, reader in present if _is_over(reader.admission)]
        )
        for key, reader in out:
            if self._readers.get(key) is reader:
                del self._readers[key]
                reader.is_out = True
        if out:
            for channel in self._channels.values():
                channel.wake()


def _is_over(admission: Admission) -> bool:
    """Where a defect keeps that from being known, it is: nobody reads on unseen."""
    try:
        return admission.is_over()
    except ManagedError:
        raise
    except Exception:
        log.exception("admission_defect")
        return True


def event_stream(
    services: Services, followers: Followers, admission: Admission, job_id: str, position: int
) -> EventSourceResponse:
    """Every event of the job after `position`, then those to come; closes after its last one, soon
    after the admission is over, and now and then before: who reads on asks anew, and whether the
    job is still theirs to see is looked at anew.
    """

    async def messages() -> AsyncIterator[bytes]:
        pages = pages_of_job(services, followers, admission, job_id, position, _LONGEST_SECONDS)
        async for page in pages:
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
    admission: Admission,
    job_id: str,
    position: int,
    longest: float,
) -> AsyncIterator[Sequence[Event]]:
    """Every event of the job after `position`, then those to come, as many at once as there are.
    Ends after its last one, when the admission is over, or when after `longest` seconds nothing is
    there to be told.
    """
    ends_at = asyncio.get_running_loop().time() + longest
    with followers.following(job_id, admission) as (channel, reader):
        while not reader.is_out:
            changed, progress = channel.changed, channel.progress
            if progress is not None and position < progress.last_seq:
                page = await asyncio.to_thread(services.events.after, job_id, position, _PAGE)
                if page:
                    yield page
                    position = page[-1].seq
                    continue
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
