"""Maintenance windows, what surveys found in them, what they have missed, and the pause."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from api.auth import Caller, CallerDependency, GuardedRoute, permits
from api.cursors import cursor_of, parts_of, wrong_cursor
from api.dependencies import Services, ServicesDependency
from api.examples import WINDOW_ID
from api.idempotency import Answer, IdempotencyKey, once
from api.moments import Moment, moment_of
from api.planning_requests import NewPause, NewWindow
from api.planning_views import (
    MissedWindowView,
    PauseStateView,
    PauseView,
    SurveyView,
    WindowView,
)
from api.routes._common import Limit, Reference, cut, problems, server_of
from api.routes.customers import customer_of, plan_of
from api.views import Page
from managed.domain.access import Permission
from managed.domain.errors import Json, NotFound
from managed.domain.jobs import JobKind
from managed.domain.servers import Server
from managed.domain.surveys import Survey, SurveyOutcome
from managed.domain.windows import (
    WINDOW_KINDS,
    Covered,
    NearestWindows,
    Window,
    WindowOwner,
    checked_minutes,
    checked_rule,
    checked_zone,
    first_day_of_rules,
)
from managed.storage.database import reading
from managed.storage.window_owners import owner_limitations, server_limitations
from managed.storage.windows import MissedWindow

router = APIRouter(prefix="/v1", tags=["windows"], route_class=GuardedRoute)

WindowReference = Annotated[uuid.UUID, Path(description="The window's id.", examples=[WINDOW_ID])]

_USUAL_SPAN = timedelta(days=7)


@router.post(
    "/windows",
    status_code=201,
    response_model=WindowView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.WINDOWS_WRITE)],
)
def add_window(
    body: NewWindow,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Open a window: from its next start on, jobs of its kind begin while it is open, one for each
    server and opening. What could not begin in time is recorded as missed.
    """

    def add(connection: Connection, window: Window) -> Answer:
        services.windows.add(connection, window)
        view = view_of(services, connection, window)
        return Answer(
            201,
            view,
            f"/v1/windows/{window.window_id}",
            subject=window.owner_id,
            facts=_facts(window),
        )

    return once(services, caller, idempotency_key, request, body).answer(
        lambda: _window(services, caller, body), add
    )


@router.get("/windows", responses=problems(404), dependencies=[permits(Permission.WINDOWS_READ)])
def list_windows(
    services: ServicesDependency,
    caller: CallerDependency,
    owner: WindowOwner | None = None,
    owner_id: Annotated[
        Reference | None, Query(description="The id of the plan, customer or server.")
    ] = None,
    server: Annotated[
        Reference | None,
        Query(
            description="Only those that are the nearest to the server of this id or name. Where"
            " none counts for it, `limitation` says why."
        ),
    ] = None,
    kind: JobKind | None = None,
    limit: Limit = 50,
    cursor: Annotated[uuid.UUID | None, Query(description="`next` of the page before.")] = None,
) -> Page[WindowView]:
    """Windows that concern servers of the caller's, oldest first, with their next opening."""
    every = services.windows.all(caller.principal.tenant)
    meant = None if server is None else server_of(services, caller, server)
    nearest = None if meant is None else _nearest(meant, every)
    after = _place_of(cursor, every)
    found = [
        window
        for window in every[after:]
        if owner in (None, window.owner)
        and owner_id in (None, window.owner_id)
        and kind in (None, window.job_kind)
        and (nearest is None or window in nearest)
    ]
    page, last = cut(found, limit)
    return Page[WindowView](
        items=_views(services, page, meant),
        next=last.window_id if last else None,
    )


@router.get(
    "/windows/{window_id}",
    responses=problems(404),
    dependencies=[permits(Permission.WINDOWS_READ)],
)
def read_window(
    window_id: WindowReference, services: ServicesDependency, caller: CallerDependency
) -> WindowView:
    """One window."""
    for window in services.windows.all(caller.principal.tenant):
        if window.window_id == str(window_id):
            return _views(services, [window])[0]
    raise NotFound(f"there is no window {window_id}", hint="GET /v1/windows lists them.")


@router.delete(
    "/windows/{window_id}",
    response_model=WindowView,
    responses=problems(404),
    dependencies=[permits(Permission.WINDOWS_WRITE)],
)
def remove_window(
    window_id: WindowReference,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Close a window for good; answers what it was. What it has started goes on."""

    def remove(connection: Connection, window: Window) -> Answer:
        services.windows.remove(connection, window.window_id, services.clock())
        view = view_of(services, connection, window)
        return Answer(200, view, subject=window.owner_id, facts=_facts(window))

    return once(services, caller, None, request, None).answer(
        lambda: services.windows.get(str(window_id)), remove
    )


@router.get(
    "/missed-windows", responses=problems(404), dependencies=[permits(Permission.WINDOWS_READ)]
)
def list_missed_windows(
    services: ServicesDependency,
    caller: CallerDependency,
    server_id: Annotated[Reference | None, Query(description="A server's id or name.")] = None,
    since: Annotated[
        Moment | None, Query(description="Recorded at that time or later; a week ago.")
    ] = None,
    kind: JobKind | None = None,
    limit: Limit = 50,
    cursor: Annotated[
        str | None, Query(max_length=300, description="`next` of the page before.")
    ] = None,
) -> Page[MissedWindowView]:
    """Openings that started nothing, newest first."""
    found = services.windows.missed(
        since=since or services.clock() - _USUAL_SPAN,
        server_id=server_of(services, caller, server_id).server_id if server_id else None,
        customer_id=caller.principal.tenant,
        kind=kind,
        before=_before(cursor) if cursor else None,
        limit=limit + 1,
    )
    page, last = cut(found, limit)
    return Page[MissedWindowView](
        items=[MissedWindowView.of(missed) for missed in page],
        next=_cursor(last) if last else None,
    )


@router.get("/surveys", responses=problems(404), dependencies=[permits(Permission.WINDOWS_READ)])
def list_surveys(
    services: ServicesDependency,
    caller: CallerDependency,
    server_id: Annotated[Reference | None, Query(description="A server's id or name.")] = None,
    since: Annotated[
        Moment | None,
        Query(description="Of openings that began at that time or later; a week ago."),
    ] = None,
    outcome: SurveyOutcome | None = None,
    limit: Limit = 50,
    cursor: Annotated[
        str | None, Query(max_length=300, description="`next` of the page before.")
    ] = None,
) -> Page[SurveyView]:
    """What was found on servers when their windows opened, newest first."""
    found = services.surveys.find(
        since=since or services.clock() - _USUAL_SPAN,
        server_id=server_of(services, caller, server_id).server_id if server_id else None,
        customer_id=caller.principal.tenant,
        outcome=outcome,
        before=_before(cursor) if cursor else None,
        limit=limit + 1,
    )
    page, last = cut(found, limit)
    return Page[SurveyView](
        items=[SurveyView.of(survey) for survey in page],
        next=_cursor(last) if last else None,
    )


@router.get("/pause", responses=problems(), dependencies=[permits(Permission.PAUSE)])
def read_pause(services: ServicesDependency) -> PauseStateView:
    """Is everything paused?"""
    pause = services.windows.pause()
    return PauseStateView(pause=PauseView.of(pause) if pause else None)


@router.post(
    "/pause",
    status_code=201,
    response_model=PauseView,
    responses=problems(409, 413),
    dependencies=[permits(Permission.PAUSE)],
)
def begin_pause(
    body: NewPause,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Pause everything: no window starts anything, no job that waits for a worker begins, and new
    ones are refused (`paused`). What has begun goes on, and so does what brings a server back:
    rescue, restore, power, delete.
    """

    def begin(connection: Connection, reason: str) -> Answer:
        pause = services.windows.begin_pause(connection, reason, caller.name, services.clock())
        return Answer(201, PauseView.of(pause), "/v1/pause", facts={"why": reason})

    return once(services, caller, idempotency_key, request, body).answer(lambda: body.reason, begin)


@router.delete(
    "/pause",
    response_model=PauseStateView,
    responses=problems(),
    dependencies=[permits(Permission.PAUSE)],
)
def end_pause(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> JSONResponse:
    """End the pause, if there is one. Windows that are open still start what they can."""

    def end(connection: Connection, _: None) -> Answer:
        services.windows.end_pause(connection)
        return Answer(200, PauseStateView(pause=None))

    return once(services, caller, None, request, None).answer(lambda: None, end)


def _nearest(server: Server, every: Sequence[Window]) -> Sequence[Window]:
    """Of all windows the nearest to this server: at most one for each kind of job."""
    covered = Covered(server.server_id, server.customer_id, server.plan_id)
    windows = NearestWindows(every)
    nearest = (windows.of(covered, kind) for kind in WINDOW_KINDS)
    return [window for window in nearest if window is not None]


def _place_of(cursor: uuid.UUID | None, windows: Sequence[Window]) -> int:
    """How many windows come before the page; NotFound when the one that it follows has gone."""
    if cursor is None:
        return 0
    for place, window in enumerate(windows, start=1):
        if window.window_id == str(cursor):
            return place
    raise NotFound(
        f"there is no window {cursor} to go on after", hint="Begin again without a cursor."
    )


def view_of(services: Services, connection: Connection, window: Window) -> WindowView:
    """The window as the caller's transaction sees it."""
    reasons = owner_limitations(connection, [window])
    return WindowView.of(window, services.clock(), reasons[window.window_id])


def _views(
    services: Services, windows: Sequence[Window], server: Server | None = None
) -> list[WindowView]:
    """With `server` as they are for that one alone."""
    now = services.clock()
    with reading(services.database) as connection:
        if server is None:
            reasons = owner_limitations(connection, windows)
        else:
            of_server = server_limitations(connection, [server.server_id])[server.server_id]
            reasons = {window.window_id: of_server for window in windows}
    return [WindowView.of(window, now, reasons[window.window_id]) for window in windows]


def _cursor(last: MissedWindow | Survey) -> str:
    return cursor_of(last.opening.starts_at.isoformat(), last.server_id, last.job_kind.value)


def _before(cursor: str) -> tuple[datetime, str, str]:
    starts_at, server_id, kind = parts_of(cursor, 3)
    try:
        return moment_of(starts_at), server_id, kind
    except ValueError as error:
        raise wrong_cursor() from error


def _facts(window: Window) -> dict[str, Json]:
    return {
        "window_id": window.window_id,
        "owner": window.owner.value,
        "kind": window.job_kind.value,
        "rule": window.rule,
        "zone": window.zone,
        "minutes": window.minutes,
    }


def _window(services: Services, caller: Caller, body: NewWindow) -> Window:
    now = services.clock()
    zone = checked_zone(body.zone)
    starts_on = body.starts_on or first_day_of_rules(zone, now)
    return Window(
        window_id=str(uuid.uuid4()),
        owner=body.owner,
        owner_id=_owner_id(services, caller, body.owner, body.owner_id),
        job_kind=JobKind(body.job_kind),
        rule=checked_rule(body.rule, zone, starts_on, now),
        zone=zone,
        minutes=checked_minutes(body.minutes),
        starts_on=starts_on,
        created_at=now,
    )


def _owner_id(services: Services, caller: Caller, owner: WindowOwner, reference: str) -> str:
    match owner:
        case WindowOwner.SERVER:
            return server_of(services, caller, reference).server_id
        case WindowOwner.CUSTOMER:
            return customer_of(services, reference).customer_id
        case WindowOwner.PLAN:
            return plan_of(services, reference).plan_id
