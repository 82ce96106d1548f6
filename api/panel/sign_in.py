"""Signing in and out, and the one-time link by which people set their password."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from api.auth import permits
from api.dependencies import Services, ServicesDependency
from api.panel import passwords
from api.panel.assets import BY_ADDRESS
from api.panel.pages import page
from api.panel.route import (
    SIGN_IN,
    FormDependency,
    OpenPageRoute,
    PageRoute,
    Visitor,
    VisitorDependency,
    own_path,
    session_cookie,
)
from api.panel.throttle import Throttle
from managed.domain.access import User
from managed.domain.audit import Deed
from managed.domain.errors import InvalidInput, NotFound
from managed.domain.secrets import Secret
from managed.domain.sign_in import (
    SESSION_LIFE,
    SHORTEST_PASSWORD,
    Invitation,
    checked_password,
    new_link_token,
    require_open,
)
from managed.storage import audit
from managed.storage.database import writing

log = structlog.get_logger()

open_router = APIRouter(prefix="/panel", route_class=OpenPageRoute, include_in_schema=False)
router = APIRouter(prefix="/panel", route_class=PageRoute, include_in_schema=False)

_FOR_EVER = "public, max-age=31536000, immutable"
_WRONG = "The e-mail address or the password is wrong."
_CAN_SIGN_IN_NOW = "Your password is set. Sign in with it."

LinkToken = Annotated[str, Path(max_length=100)]


@open_router.get("/static/{name}")
def read_asset(name: str) -> Response:
    asset = BY_ADDRESS.get(name)
    if asset is None:
        return Response(status_code=HTTPStatus.NOT_FOUND)
    headers = {"Cache-Control": _FOR_EVER}
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@open_router.get("/sign-in")
def show_sign_in(
    request: Request,
    next_page: Annotated[str, Query(alias="next", max_length=200)] = "",
    password_set: bool = False,
) -> Response:
    note = _CAN_SIGN_IN_NOW if password_set else ""
    return page(request, "sign_in.html", next_page=next_page, note=note, problem="", email="")


@open_router.post("/sign-in")
def sign_in(request: Request, services: ServicesDependency, fields: FormDependency) -> Response:
    """A new session with every sign-in; the one before, if there was one, ends."""
    email, now = fields.get("email", "").strip()[:254], services.clock()
    address = request.client.host if request.client else ""
    throttle: Throttle = request.app.state.throttle
    wait = throttle.begin(email, address, now)
    if wait:
        minutes = math.ceil(wait.total_seconds() / 60)
        problem = f"Too many sign-ins have failed. Try again in {minutes} minutes."
        headers = {"Retry-After": str(math.ceil(wait.total_seconds()))}
        return _refused(request, HTTPStatus.TOO_MANY_REQUESTS, problem, headers)
    user = _user(services, email, fields.get("password", ""))
    if user is None:
        log.warning("sign_in_refused", address=address)
        return _refused(request, HTTPStatus.FORBIDDEN, _WRONG)
    throttle.succeeded(email, address)
    name, is_secure = session_cookie(request)
    cookie = new_link_token()
    with writing(services.database) as connection:
        services.panel_access.end_session(connection, request.cookies.get(name, ""))
        session = services.panel_access.open_session(connection, user, cookie, now)
        deed = Deed(now, user.email, "sign_in", user.user_id, data={"address": address})
        audit.record(connection, deed)
    target = own_path(fields.get("next", "")) or Visitor(user, session).home
    answer = RedirectResponse(target, HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        name,
        cookie.reveal(),
        max_age=int(SESSION_LIFE.total_seconds()),
        path="/",
        secure=is_secure,
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/sign-out", dependencies=[permits(None)])
def sign_out(
    request: Request, services: ServicesDependency, visitor: VisitorDependency
) -> Response:
    """The session ends here, whatever the browser keeps of it."""
    name, is_secure = session_cookie(request)
    user = visitor.user
    with writing(services.database) as connection:
        services.panel_access.end_session(connection, request.cookies.get(name, ""))
        audit.record(connection, Deed(services.clock(), user.email, "sign_out", user.user_id))
    answer = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    answer.delete_cookie(name, path="/", secure=is_secure, httponly=True, samesite="lax")
    return answer


@router.get("", dependencies=[permits(None)])
def go_home(visitor: VisitorDependency) -> Response:
    return RedirectResponse(visitor.home, HTTPStatus.SEE_OTHER)


@open_router.get("/invitation/{token}")
def show_invitation(request: Request, token: LinkToken, services: ServicesDependency) -> Response:
    """Looking at the link does not use it up: programs look at links in mails."""
    user, _ = _invited(services, token)
    return _invitation_page(request, user)


@open_router.post("/invitation/{token}")
def set_password(
    request: Request, token: LinkToken, services: ServicesDependency, fields: FormDependency
) -> Response:
    """Set the password by the link, which then counts no more; the user's sessions end."""
    user, invitation = _invited(services, token)
    try:
        password = checked_password(fields.get("password", ""), fields.get("again", ""), user)
    except InvalidInput as error:
        return _invitation_page(request, user, error)
    _keep_password(services, user, invitation, password)
    return RedirectResponse(f"{SIGN_IN}?password_set=true", HTTPStatus.SEE_OTHER)


def _keep_password(
    services: Services, user: User, invitation: Invitation, password: Secret
) -> None:
    hashed, now = passwords.hashed(password), services.clock()
    with writing(services.database) as connection:
        services.panel_access.set_password(connection, invitation, hashed, now)
        audit.record(connection, Deed(now, user.email, "set_password", user.user_id))


def _user(services: Services, email: str, password: str) -> User | None:
    """Who signs in with these, or None: whatever is wrong, it takes as long to find out."""
    found = services.panel_access.credentials(email)
    password_hash = found.password_hash if found else None
    is_right = passwords.is_right(password, password_hash)
    if found is None or password_hash is None or not is_right or found.user.disabled_at:
        return None
    if passwords.is_outdated(password_hash):
        stronger = passwords.hashed(Secret(password))
        services.panel_access.replace_hash(found.user, password_hash, stronger)
    return found.user


def _invited(services: Services, token: str) -> tuple[User, Invitation]:
    found = services.panel_access.invited_by(token)
    if found is None:
        raise NotFound(
            "there is no such invitation",
            hint="A newer one takes the place of those before. Ask an admin for one.",
        )
    user, invitation = found
    require_open(invitation.limitation(user, services.clock()))
    return user, invitation


def _invitation_page(request: Request, user: User, error: InvalidInput | None = None) -> Response:
    return page(
        request,
        "invitation.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if error else HTTPStatus.OK,
        user=user,
        error=error,
        shortest=SHORTEST_PASSWORD,
    )


def _refused(
    request: Request, status: HTTPStatus, problem: str, headers: dict[str, str] | None = None
) -> Response:
    fields = request.state.form
    return page(
        request,
        "sign_in.html",
        status=status,
        headers=headers,
        problem=problem,
        note="",
        email=fields.get("email", "")[:254],
        next_page=fields.get("next", "")[:200],
    )
