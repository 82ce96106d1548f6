"""Puts the panel into the application."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from api.panel import jobs, missing, requests, servers, sign_in, tonight
from api.panel.protection import PanelHeaders
from api.panel.throttle import Throttle
from api.queries import known_query


def install_panel(app: FastAPI) -> None:
    """Its routes, the headers of its answers, and its count of failed sign-ins. Comes before the
    middleware that sets the headers of all answers: of the two the panel's count.
    """
    app.state.throttle = Throttle()
    app.add_middleware(PanelHeaders)
    for router in (
        sign_in.open_router,
        sign_in.router,
        tonight.router,
        servers.router,
        jobs.router,
        requests.router,
        missing.router,
    ):
        app.include_router(router, dependencies=[Depends(known_query)])
