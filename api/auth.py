"""Who calls. One bearer token today; users and roles come in through the same dependency."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.dependencies import ServicesDependency
from managed.domain.errors import InvalidInput, Unauthorized

_bearer: Final = HTTPBearer(auto_error=False, description="The content of the token file.")

_LONGEST_NAME: Final = 100


@dataclass(frozen=True)
class Caller:
    """`name` is what jobs record as `requested_by`."""

    name: str


def caller(
    services: ServicesDependency,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    x_requested_by: Annotated[
        str | None, Header(description="Who asks, for the record: a person or a program.")
    ] = None,
) -> Caller:
    """The one who calls; Unauthorized without the right token. Compared in constant time."""
    given = credentials.credentials if credentials else ""
    if not hmac.compare_digest(given.encode(), services.token.reveal().encode()):
        raise Unauthorized(
            "this route needs the header Authorization: Bearer <token>",
            hint="The token is in the file that `managed serve` names when it starts.",
        )
    if x_requested_by is None:
        return Caller("api-token")
    if len(x_requested_by) > _LONGEST_NAME or not x_requested_by.isprintable():
        raise InvalidInput(
            f"a name has at most {_LONGEST_NAME} printable characters", field="X-Requested-By"
        )
    return Caller(f"{x_requested_by} (api-token)")


CallerDependency = Annotated[Caller, Depends(caller)]
