"""Who calls, and whether they may: asked before a request's body is looked at.

Every route of a router with `GuardedRoute` names the one permission that it takes; what belongs to
another customer is not there for a customer (`api.routes._common.server_of`).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response
from fastapi.params import Depends as DependsParameter
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.dependencies import Services, services
from managed.domain.access import Permission, Principal, Role
from managed.domain.errors import Forbidden, InvalidInput, Unauthorized
from managed.domain.tokens import principal_of

bearer: Final = HTTPBearer(
    auto_error=False, description="A user's API token, or the content of the token file."
)

OPERATOR: Final = "api-token"
"""The user id of whoever holds the installation's own token."""

_LONGEST_NAME: Final = 100
LONGEST_REASON: Final = 500


@dataclass(frozen=True)
class Caller:
    """Who asks, and why as far as they said; `name` is what jobs record as `requested_by`."""

    principal: Principal
    name: str
    reason: str = ""


@dataclass(frozen=True)
class Admission:
    """What a request was let in by, for streams that outlast it: `key` names the token or the
    session; `admit` looks at it anew, and raises what stands against it.
    """

    key: str
    admit: Callable[[], object]

    def is_over(self) -> bool:
        try:
            self.admit()
        except (Unauthorized, Forbidden):
            return True
        return False


def admission(request: Request) -> Admission:
    found: Admission = request.state.admission
    return found


AdmissionDependency = Annotated[Admission, Depends(admission)]


@dataclass(frozen=True)
class Permits:
    """The permission that a route takes; None: every caller may who is one."""

    permission: Permission | None

    def __call__(self) -> None:
        """Nothing is done here: `GuardedRoute` has looked before the body was read."""


def permits(permission: Permission | None) -> Any:
    """For the `dependencies` of a route."""
    return Depends(Permits(permission))


class GuardedRoute(APIRoute):
    """Asks for token and permission before it reads the body: a stranger's is not looked at."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        permission = permission_of(self.dependencies, self.path)

        async def handle_permitted(request: Request) -> Response:
            credentials = await bearer(request)

            def admitted() -> Principal:
                principal = _principal(services(request), credentials)
                if permission is not None:
                    principal.require(permission)
                return principal

            principal = await run_in_threadpool(admitted)
            request.state.principal = principal
            request.state.admission = Admission(f"token {principal.token_id}", admitted)
            return await handle(request)

        return handle_permitted


def permission_of(dependencies: Sequence[DependsParameter], path: str) -> Permission | None:
    """The one permission among a route's dependencies; TypeError where none is named."""
    named = [d.dependency.permission for d in dependencies if isinstance(d.dependency, Permits)]
    if len(named) != 1:
        raise TypeError(f"the route {path} has to name the one permission that it takes")
    return named[0]


def caller(
    request: Request,
    x_requested_by: Annotated[
        str | None,
        Header(
            description="Who asks, for the record: a person or a program. Counts only with the"
            " installation's own token; users' tokens say who they are."
        ),
    ] = None,
    x_reason: Annotated[
        str | None,
        Header(description="Why, for the audit log, such as the number of a ticket."),
    ] = None,
) -> Caller:
    """The one who calls, whom the route has let in."""
    principal: Principal = request.state.principal
    reason = printable_text(x_reason, "X-Reason", LONGEST_REASON)
    requested_by = printable_text(x_requested_by, "X-Requested-By", _LONGEST_NAME)
    if requested_by and principal.user_id == OPERATOR:
        return Caller(principal, f"{requested_by} ({OPERATOR})", reason)
    return Caller(principal, principal.name, reason)


CallerDependency = Annotated[Caller, Depends(caller)]


def printable_text(text: str | None, field: str, longest: int) -> str:
    """The text, empty for none; InvalidInput when it is too long or not of one line."""
    if text is None:
        return ""
    if len(text) > longest or not text.isprintable():
        raise InvalidInput(f"it has at most {longest} printable characters", field=field)
    return text


def _principal(services: Services, credentials: HTTPAuthorizationCredentials | None) -> Principal:
    """Whose token it is; Unauthorized without a right one. Compared in constant time."""
    given = credentials.credentials if credentials else ""
    if hmac.compare_digest(given.encode(), services.token.reveal().encode()):
        return Principal(OPERATOR, OPERATOR, Role.ADMIN)
    opened = services.access.opened_by(given, services.clock())
    if opened is None:
        raise Unauthorized(
            "this route needs the header Authorization: Bearer <token>",
            hint="An admin makes tokens (POST /v1/tokens, `managed tokens make`); the first one is"
            " in the file that `managed serve` names when it starts.",
        )
    return principal_of(*opened, services.clock())
