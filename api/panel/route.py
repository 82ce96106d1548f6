"""Routes of pages: who is signed in, whether they may, and whether a form is ours; asked before
anything is done. Errors are pages here.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote

import structlog
from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.auth import LONGEST_REASON, Admission, Caller, permission_of, printable_text
from api.dependencies import Services, services
from api.errors import status_of
from api.panel.pages import error_page
from api.panel.protection import comes_from_our_pages
from managed.domain.access import Permission, Principal, User
from managed.domain.errors import (
    Forbidden,
    InternalError,
    InvalidInput,
    ManagedError,
    NotFound,
    Unauthorized,
)
from managed.domain.sign_in import PanelSession

log = structlog.get_logger()

SIGN_IN: Final = "/panel/sign-in"
# The prefix has browsers take it from us alone, not from a neighbour on the same domain; they do so
# only over HTTPS.
_SECURE_COOKIE: Final = "__Host-managed-session"
_PLAIN_COOKIE: Final = "managed-session"
_OWN_PATH: Final = re.compile(r"/panel(/[A-Za-z0-9-]+)+")
_MOST_FIELDS: Final = 20
_FORM: Final = "application/x-www-form-urlencoded"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Form = Mapping[str, str]


@dataclass(frozen=True)
class Visitor:
    """Who is signed in. For templates, too."""

    user: User
    session: PanelSession

    @property
    def principal(self) -> Principal:
        user = self.user
        return Principal(user.user_id, user.email, user.role, user.customer_id)

    @property
    def is_staff(self) -> bool:
        return self.user.role.is_staff

    @property
    def home(self) -> str:
        return "/panel/tonight" if self.is_staff else "/panel/servers"

    def may(self, permission: Permission) -> bool:
        return permission in self.principal.permissions

    def caller(self, reason: str = "") -> Caller:
        """As whom the API's own code takes them; InvalidInput for an unfit reason."""
        text = printable_text(reason.strip(), "reason", LONGEST_REASON)
        return Caller(self.principal, self.user.email, text)


class OpenPageRoute(APIRoute):
    """A page for everybody. What changes something has to come from a page of ours."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                await self.admit(request)
                return await handle(request)
            except Unauthorized as error:
                return _to_sign_in(request, error)
            except ManagedError as error:
                return error_page(request, status_of(error), error)
            except RequestValidationError:
                return error_page(request, HTTPStatus.NOT_FOUND, no_such_page())
            except HTTPException as error:
                return error_page(
                    request, error.status_code, InvalidInput(error.detail), error.headers
                )
            except Exception:
                log.exception("panel_defect", route=self.path)
                return error_page(request, HTTPStatus.INTERNAL_SERVER_ERROR, _defect())

        return handle_page

    async def admit(self, request: Request) -> None:
        """Raises what stands against the request; reads its form."""
        if request.method != "GET":
            _require_our_page(request)
            request.state.form = await _form(request)


class PageRoute(OpenPageRoute):
    """A page for who is signed in, with the one permission that it names."""

    def get_route_handler(self) -> Handler:
        self.permission = permission_of(self.dependencies, self.path)
        return super().get_route_handler()

    async def admit(self, request: Request) -> None:
        visitor = await run_in_threadpool(self._admitted, request)
        request.state.visitor = visitor
        request.state.admission = Admission(
            f"session {visitor.session.session_id}", lambda: self._admitted(request)
        )
        await super().admit(request)
        if request.method != "GET":
            given = request.state.form.get("csrf") or request.headers.get("x-csrf-token", "")
            if not hmac.compare_digest(given.encode(), visitor.session.csrf.encode()):
                raise _not_ours()

    def _admitted(self, request: Request) -> Visitor:
        visitor = _visitor(services(request), request)
        if self.permission is not None:
            visitor.principal.require(self.permission)
        return visitor


def visitor(request: Request) -> Visitor:
    found: Visitor = request.state.visitor
    return found


def form(request: Request) -> Form:
    found: Form = request.state.form
    return found


VisitorDependency = Annotated[Visitor, Depends(visitor)]
FormDependency = Annotated[Form, Depends(form)]


def session_cookie(request: Request) -> tuple[str, bool]:
    """The name of the cookie with the session, and whether it goes over HTTPS only."""
    public_url = services(request).public_url
    is_secure = public_url.startswith("https://") or request.url.scheme == "https"
    return (_SECURE_COOKIE if is_secure else _PLAIN_COOKIE), is_secure


def own_path(path: str) -> str | None:
    """The path if it is a page of the panel: nobody is sent elsewhere after the sign-in."""
    return path if _OWN_PATH.fullmatch(path) else None


def _visitor(reached: Services, request: Request) -> Visitor:
    cookie = request.cookies.get(session_cookie(request)[0], "")
    # What a page asks by itself, over and over, keeps nobody signed in.
    is_use = "hx-request" not in request.headers and "text/event-stream" not in (
        request.headers.get("accept", "")
    )
    opened = reached.panel_access.opened_by(cookie, reached.clock(), is_use=is_use)
    if opened is None:
        raise Unauthorized("nobody is signed in here", hint="Sign in again.")
    return Visitor(*opened)


def _require_our_page(request: Request) -> None:
    own = services(request).public_url or f"{request.url.scheme}://{request.url.netloc}"
    headers = request.headers
    if not comes_from_our_pages(headers.get("sec-fetch-site"), headers.get("origin"), own):
        raise _not_ours()


async def _form(request: Request) -> Form:
    """The fields of a form as our pages send it. A multipart one may name any charset, some of
    which decode to what is no text: no page of ours sends one.
    """
    media_type = request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise InvalidInput(
            "this is not the kind of form that the panel's pages send",
            hint="Go back, load the page again, and send the form once more.",
        )
    given = await request.form(max_fields=_MOST_FIELDS)
    texts = {name: value for name, value in given.items() if isinstance(value, str)}
    if any("\0" in value for value in texts.values()):
        raise InvalidInput("a field holds a character that no text has")
    return texts


def _to_sign_in(request: Request, error: Unauthorized) -> Response:
    """Pages lead to the sign-in and back; what a page asks by itself takes the page there."""
    back = own_path(request.url.path) if request.method == "GET" else None
    target = f"{SIGN_IN}?next={quote(back)}" if back else SIGN_IN
    if "hx-request" in request.headers:
        current = {"HX-Redirect": target}
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers=current)
    if "text/event-stream" in request.headers.get("accept", ""):
        return Response(error.message, HTTPStatus.UNAUTHORIZED)
    return RedirectResponse(target, HTTPStatus.SEE_OTHER)


def _not_ours() -> Forbidden:
    return Forbidden(
        "this form did not come from a page of the panel that you have open",
        hint="Go back, load the page again, and send the form once more.",
    )


def no_such_page() -> NotFound:
    return NotFound("there is no such page", hint="Look for the server by its name.")


def _defect() -> InternalError:
    return InternalError(
        "this is a defect in managed; what you asked for may or may not have been done",
        hint="Whoever runs this service finds it in the log as panel_defect.",
    )


def required(fields: Form, name: str, what: str) -> str:
    """A field of a form that may not be empty; InvalidInput naming it."""
    value = fields.get(name, "").strip()
    if not value:
        raise InvalidInput(f"{what} is missing", hint="Go back and fill it in.", field=name)
    return value
