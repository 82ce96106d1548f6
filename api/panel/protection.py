"""What keeps other sites and hostile texts out of the panel's pages."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # With "no-referrer", the usual one here, browsers send forms with the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class PanelHeaders:
    """What browsers are told of every answer below /panel, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_panel = scope["type"] == "http" and f"{scope['path']}/".startswith("/panel/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if is_panel else send)


def comes_from_our_pages(fetch_site: str | None, origin: str | None, own: str) -> bool:
    """Was a request that changes something sent by a page of this origin (`own`)? By the browser's
    own word in Sec-Fetch-Site; by Origin where it says none, as over plain HTTP. Every browser
    sends one of them with a form.
    """
    if fetch_site is not None:
        return fetch_site == "same-origin"
    return origin == own
