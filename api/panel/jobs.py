"""One job: its steps, what they found, and its log as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.auth import Admission, AdmissionDependency, permits
from api.dependencies import Services, ServicesDependency
from api.panel.pages import living_page, rendered
from api.panel.route import PageRoute, VisitorDependency
from api.panel.tonight import Seen
from api.routes._common import JobReference, job_of
from api.routes.jobs import LARGEST_NUMBER, position_of
from api.sse import Followers, encoded, pages_of_job, stream_of
from managed.domain.access import Permission
from managed.domain.event_lines import EventLine, event_line
from managed.domain.events import Event
from managed.domain.jobs import Job
from managed.storage.following import progress_of

router = APIRouter(prefix="/panel/jobs", route_class=PageRoute, include_in_schema=False)

_LINES_SHOWN: Final = 300
_LINES_OF_WHOLE_LOG: Final = 5000
# Then browsers open the stream again, and it is asked anew whether the server is theirs: who lost
# it does not read on for hours. Whether they are signed in is looked at all the time.
LONGEST_STREAM_SECONDS: Final = 120.0


@dataclass(frozen=True)
class LogLine:
    seq: int
    at: datetime
    line: EventLine

    @classmethod
    def of(cls, event: Event) -> LogLine:
        return cls(event.seq, event.at, event_line(event.type, event.data))


@router.get("/{job_id}", dependencies=[permits(Permission.JOBS_READ)])
def show_job(
    request: Request,
    job_id: JobReference,
    services: ServicesDependency,
    visitor: VisitorDependency,
    whole_log: bool = False,
    seen: Seen = None,
) -> Response:
    job = job_of(services, visitor.caller(), job_id)
    names = services.overview.server_names([job.server_id])
    values = {
        "job": job,
        "server_name": names[job.server_id],
        "id": "job",
        "address": f"/panel/jobs/{job.job_id}",
        "trigger": "" if job.status.is_final else "every 3s, sse:end",
    }
    if seen is None:
        values |= _log(services, job.job_id, whole=whole_log)
    return living_page(request, "job.html", "_job.html", seen=seen, **values)


@router.get("/{job_id}/events", dependencies=[permits(Permission.JOBS_READ)])
async def follow_log(
    request: Request,
    job_id: JobReference,
    services: ServicesDependency,
    visitor: VisitorDependency,
    admission: AdmissionDependency,
    after: Annotated[int, Query(ge=0, le=LARGEST_NUMBER)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The log's lines after the given number as pieces of the page (`line`), as they come; `end`
    when there will be no more.
    """
    job = await run_in_threadpool(job_of, services, visitor.caller(), job_id)
    position = position_of(last_event_id) if last_event_id else after
    followers: Followers = request.app.state.followers
    return stream_of(_messages(services, followers, admission, job, position))


async def _messages(
    services: Services, followers: Followers, admission: Admission, job: Job, position: int
) -> AsyncIterator[bytes]:
    # Who has read the log to its end is told so, and does not come again.
    found = await run_in_threadpool(progress_of, services.database, [job.job_id])
    progress = found[job.job_id]
    is_over = progress.is_final and position >= progress.last_seq
    if not is_over:
        pages = pages_of_job(
            services, followers, admission, job.job_id, position, LONGEST_STREAM_SECONDS
        )
        async for page in pages:
            yield await run_in_threadpool(encoded, page, partial(_message, job))
            is_over = page[-1].type == "job_ended"
    if is_over:
        yield ServerSentEvent(event="end", data="").encode()


def _message(job: Job, event: Event) -> ServerSentEvent:
    """ASCII only, as the API's events are: readers differ in which characters end a line."""
    text = rendered("_line.html", job=job, one=LogLine.of(event))
    ascii_only = text.encode("ascii", "xmlcharrefreplace").decode()
    return ServerSentEvent(id=str(event.seq), event="line", data=ascii_only)


def _log(services: Services, job_id: str, *, whole: bool) -> dict[str, object]:
    """The log's last lines; all of them on demand."""
    last = progress_of(services.database, [job_id])[job_id].last_seq
    shown = _LINES_OF_WHOLE_LOG if whole else _LINES_SHOWN
    events = services.events.after(job_id, max(0, last - shown), shown)
    return {
        "lines": [LogLine.of(event) for event in events],
        "position": events[-1].seq if events else 0,
        "left_out": events[0].seq - 1 if events else 0,
        "is_whole": whole,
    }
