"""*Tonight*: what staff look at first. What failed comes first, what is done is a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import permits
from api.dependencies import Services, ServicesDependency
from api.panel.pages import living_page
from api.panel.route import PageRoute, VisitorDependency
from managed.domain.access import Permission
from managed.domain.event_lines import progress_sentence
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.requests import Request as TicketRequest
from managed.domain.requests import RequestStatus
from managed.domain.surveys import SurveyOutcome
from managed.storage.overview import JobOnServer
from managed.storage.windows import MissedWindow, Pause

router = APIRouter(prefix="/panel", route_class=PageRoute, include_in_schema=False)

NIGHT = timedelta(hours=24)
_MOST_ROWS = 100

Seen = Annotated[str | None, Query(max_length=32)]


@dataclass(frozen=True)
class FailedRow:
    """`sentence` is the error's, `title` what kind of error it is."""

    job_id: str
    kind: JobKind
    server_id: str
    server_name: str
    step: str
    title: str
    sentence: str
    at: datetime | None


@dataclass(frozen=True)
class MissedRow:
    missed: MissedWindow
    server_name: str


@dataclass(frozen=True)
class WaitingRow:
    """`server_name` is None while nobody has said which server is meant."""

    request: TicketRequest
    server_name: str | None


@dataclass(frozen=True)
class RunningRow:
    """`since` is when the present step began, or when the job was asked for; `progress` may be
    empty.
    """

    job_id: str
    kind: JobKind
    status: JobStatus
    server_id: str
    server_name: str
    step: str
    since: datetime
    progress: str
    is_taken_back: bool


@dataclass(frozen=True)
class Night:
    """`nothing_to_do` counts surveys that proved it, so that no job was started."""

    failed: list[FailedRow]
    missed: list[MissedRow]
    waiting: list[WaitingRow]
    running: list[RunningRow]
    done: Mapping[JobKind, int]
    nothing_to_do: int
    pause: Pause | None
    most: int = _MOST_ROWS

    @property
    def done_count(self) -> int:
        return sum(self.done.values())


@router.get("/tonight", dependencies=[permits(Permission.JOBS_READ)])
def show_tonight(
    request: Request,
    services: ServicesDependency,
    visitor: VisitorDependency,
    seen: Seen = None,
) -> Response:
    """For staff; it would show a customer who else is one."""
    if not visitor.is_staff:
        return RedirectResponse(visitor.home, 303)
    night = night_of(services, services.clock())
    values = {"night": night, "id": "tonight", "address": "/panel/tonight", "trigger": "every 5s"}
    return living_page(request, "tonight.html", "_tonight.html", seen=seen, **values)


def night_of(services: Services, now: datetime) -> Night:
    """The last 24 hours, and what goes on."""
    missed = services.windows.missed(since=now - NIGHT, ended_after=now - NIGHT, limit=_MOST_ROWS)
    waiting = services.requests.find(status=RequestStatus.OPEN, limit=_MOST_ROWS)
    named = {one.server_id for one in missed}
    named |= {one.server_id for one in waiting if one.server_id is not None}
    names = services.overview.server_names(named)
    return Night(
        failed=[_failed(one) for one in services.overview.failed(now - NIGHT, _MOST_ROWS)],
        missed=[MissedRow(one, names[one.server_id]) for one in missed],
        waiting=[WaitingRow(one, names.get(one.server_id or "")) for one in waiting],
        running=[_running(one) for one in services.overview.under_way(_MOST_ROWS)],
        done=services.overview.succeeded(now - NIGHT),
        nothing_to_do=services.surveys.counts(now - NIGHT).get(SurveyOutcome.NOTHING_TO_DO, 0),
        pause=services.windows.pause(),
    )


def _failed(found: JobOnServer) -> FailedRow:
    job = found.job
    error = job.error or {}
    return FailedRow(
        job_id=job.job_id,
        kind=job.kind,
        server_id=job.server_id,
        server_name=found.server_name,
        step=found.step,
        title=str(error.get("title") or "It failed"),
        sentence=str(error.get("detail") or "There is no record of why."),
        at=job.finished_at,
    )


def _running(found: JobOnServer) -> RunningRow:
    job, progress = found.job, found.progress
    return RunningRow(
        job_id=job.job_id,
        kind=job.kind,
        status=job.status,
        server_id=job.server_id,
        server_name=found.server_name,
        step=found.step.removeprefix("undo:"),
        since=job.step_started_at or job.started_at or job.created_at,
        progress=(progress_sentence(progress.type, progress.data) or "") if progress else "",
        is_taken_back=job.verdict is not None,
    )
