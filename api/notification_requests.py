"""What requests about notifications may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from api.planning_requests import Title
from api.requests import Request
from managed.domain.notifications import Occasion, TargetKind


class NewTarget(Request):
    """Somebody to tell: by mail, or by a signed call of a webhook. A customer's target is told of
    the customer's servers only, one without a customer of all.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "webhook",
                    "address": "https://hooks.example.org/managed",
                    "occasions": ["job-failed"],
                    "customer": "Anna Shop Ltd",
                }
            ]
        }
    )
    kind: TargetKind
    address: Annotated[str, StringConstraints(min_length=3, max_length=2000)] = Field(
        description="A mail address, or the URL of a webhook."
    )
    occasions: frozenset[Occasion] = Field(
        frozenset(Occasion), min_length=1, description="What to tell of; everything."
    )
    customer: Title | None = Field(None, description="A customer's id or name; the staff.")
