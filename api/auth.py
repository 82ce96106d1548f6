"""Who calls. One bearer token today; users and roles come in through the same dependency."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.dependencies import Services, ServicesDependency, services
from managed.domain.errors import InvalidInput, Unauthorized

_bearer: Final = HTTPBearer(auto_error=False, description="The content of the token file.")

_LONGEST_NAME: Final = 100


@dataclass(frozen=True)
class Caller:
    """`name` is what jobs record as `requested_by`."""

    name: str


class TokenFirst(APIRoute):
    """Asks for the token before it reads the body: a stranger's is not looked at."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_known(request: Request) -> Response:
            _require_token(services(request), await _bearer(request))
            return await handle(request)

        return handle_known


def caller(
    services: ServicesDependency,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    x_requested_by: Annotated[
        str | None, Header(description="Who asks, for the record: a person or a program.")
    ] = None,
) -> Caller:
    """The one who calls; Unauthorized without the right token."""
    _require_token(services, credentials)
    if x_requested_by is None:
        return Caller("api-token")
    if len(x_requested_by) > _LONGEST_NAME or not x_requested_by.isprintable():
        raise InvalidInput(
            f"a name has at most {_LONGEST_NAME} printable characters", field="X-Requested-By"
        )
    return Caller(f"{x_requested_by} (api-token)")


def _require_token(services: Services, credentials: HTTPAuthorizationCredentials | None) -> None:
    """Compared in constant time."""
    given = credentials.credentials if credentials else ""
    if not hmac.compare_digest(given.encode(), services.token.reveal().encode()):
        raise Unauthorized(
            "this route needs the header Authorization: Bearer <token>",
            hint="The token is in the file that `managed serve` names when it starts.",
        )


CallerDependency = Annotated[Caller, Depends(caller)]
