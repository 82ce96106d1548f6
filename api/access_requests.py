"""What requests about users and tokens may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from api.planning_requests import Email, Title
from api.requests import Request
from managed.domain.access import Permission, Role
from managed.domain.tokens import LONGEST_LIFE


class NewUser(Request):
    """Somebody who calls or signs in. `customer` (id or name) is for the role customer, and only
    for it.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"email": "kim@example.org", "name": "Kim", "role": "support"}]
        }
    )
    email: Email
    name: Title
    role: Role
    customer: Title | None = None


class NewToken(Request):
    """A token for oneself, or, by an admin, for the named user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "nightly report",
                    "user": "kim@example.org",
                    "scopes": ["jobs:read"],
                    "days": 90,
                }
            ]
        }
    )
    name: Title = Field(description="What it is for.")
    user: Annotated[str, StringConstraints(min_length=1, max_length=254)] | None = Field(
        None, description="Whose it is, by id or e-mail address; the caller's."
    )
    scopes: frozenset[Permission] | None = Field(
        None, description="What it is limited to; null for all that the role permits."
    )
    days: int = Field(90, ge=1, le=LONGEST_LIFE.days, description="When it ends.")
