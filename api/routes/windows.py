"""Maintenance windows, what they have missed, and the pause."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime
from sqlalchemy import Connection

from api.auth import CallerDependency, TokenFirst
from api.dependencies import Services, ServicesDependency
from api.examples import WINDOW_ID
from api.idempotency import Answer, IdempotencyKey, once
from api.planning_requests import NewPause, NewWindow
from api.planning_views import (
    MissedWindowView,
    PauseStateView,
    PauseView,
    WindowView,
)
from api.routes._common import Limit, Reference, problems, server_of
from api.routes.customers import customer_of, plan_of
from api.views import Page
from managed.domain.jobs import JobKind
from managed.domain.windows import (
    Window,
    WindowOwner,
    checked_minutes,
    checked_rule,
    checked_zone,
)
from managed.storage.database import writing

router = APIRouter(prefix="/v1", tags=["windows"], route_class=TokenFirst)

WindowReference = Annotated[uuid.UUID, Path(description="The window's id.", examples=[WINDOW_ID])]

_USUAL_SPAN = timedelta(days=7)


@router.post(
    "/windows", status_code=201, response_model=WindowView, responses=problems(404, 409, 413)
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
        view = WindowView.of(window, services.clock())
        return Answer(201, view, f"/v1/windows/{window.window_id}")

    return once(services, caller, idempotency_key, request, body).answer(
        lambda: _window(services, body), add
    )


@router.get("/windows", responses=problems())
def list_windows(services: ServicesDependency) -> Page[WindowView]:
    """Every window, oldest first, with its next opening."""
    now = services.clock()
    return Page[WindowView](items=[WindowView.of(w, now) for w in services.windows.all()])


@router.get("/windows/{window_id}", responses=problems(404))
def read_window(window_id: WindowReference, services: ServicesDependency) -> WindowView:
    """One window."""
    return WindowView.of(services.windows.get(str(window_id)), services.clock())


@router.delete("/windows/{window_id}", responses=problems(404))
def remove_window(
    window_id: WindowReference, services: ServicesDependency, caller: CallerDependency
) -> WindowView:
    """Close a window for good; answers what it was. What it has started goes on."""
    window = services.windows.get(str(window_id))
    with writing(services.database) as connection:
        services.windows.remove(connection, window.window_id)
    return WindowView.of(window, services.clock())


@router.get("/missed-windows", responses=problems(404))
def list_missed_windows(
    services: ServicesDependency,
    server_id: Annotated[Reference | None, Query(description="A server's id or name.")] = None,
    since: Annotated[
        AwareDatetime | None, Query(description="Recorded at that time or later; a week ago.")
    ] = None,
    limit: Limit = 50,
) -> Page[MissedWindowView]:
    """Openings that started nothing, newest first."""
    found = services.windows.missed(
        since=since or services.clock() - _USUAL_SPAN,
        server_id=server_of(services, server_id).server_id if server_id else None,
        limit=limit,
    )
    return Page[MissedWindowView](items=[MissedWindowView.of(missed) for missed in found])


@router.get("/pause", responses=problems())
def read_pause(services: ServicesDependency) -> PauseStateView:
    """Is everything paused?"""
    pause = services.windows.pause()
    return PauseStateView(pause=PauseView.of(pause) if pause else None)


@router.post("/pause", status_code=201, response_model=PauseView, responses=problems(409, 413))
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
        return Answer(201, PauseView.of(pause), "/v1/pause")

    return once(services, caller, idempotency_key, request, body).answer(lambda: body.reason, begin)


@router.delete("/pause", responses=problems())
def end_pause(services: ServicesDependency, caller: CallerDependency) -> PauseStateView:
    """End the pause, if there is one. Windows that are open still start what they can."""
    with writing(services.database) as connection:
        services.windows.end_pause(connection)
    return PauseStateView(pause=None)


def _window(services: Services, body: NewWindow) -> Window:
    now = services.clock()
    zone = checked_zone(body.zone)
    starts_on = body.starts_on or now.date()
    return Window(
        window_id=str(uuid.uuid4()),
        owner=body.owner,
        owner_id=_owner_id(services, body.owner, body.owner_id),
        job_kind=JobKind(body.job_kind),
        rule=checked_rule(body.rule, starts_on),
        zone=zone,
        minutes=checked_minutes(body.minutes),
        starts_on=starts_on,
        created_at=now,
    )


def _owner_id(services: Services, owner: WindowOwner, reference: str) -> str:
    match owner:
        case WindowOwner.SERVER:
            return server_of(services, reference).server_id
        case WindowOwner.CUSTOMER:
            return customer_of(services, reference).customer_id
        case WindowOwner.PLAN:
            return plan_of(services, reference).plan_id
