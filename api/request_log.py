"""A line for every request, and an id by which all lines of one request are found."""

from __future__ import annotations

import re
import time
import uuid
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()

_HEADER: Final = "X-Request-ID"
_USABLE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ASKED_BY_MACHINES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_LINKS: Final = "/panel/invitation/"


class RequestLog:
    """The id is the caller's `X-Request-ID` if it is a sane one, else a new one; the answer names
    it. Query and headers are not logged: they may hold what is nobody's business; nor is the
    end of an invitation's address, by which whoever reads the log could set its password.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "")
        request_id = given if _USABLE.fullmatch(given) else str(uuid.uuid4())
        began, status = time.monotonic(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                say = log.debug if scope["path"] in _ASKED_BY_MACHINES else log.info
                say(
                    "request",
                    method=scope["method"],
                    path=_loggable(scope["path"]),
                    status=status,
                    milliseconds=round((time.monotonic() - began) * 1000),
                )


def _loggable(path: str) -> str:
    before, link, _ = path.partition(_LINKS)
    return f"{before}{link}…" if link else path
