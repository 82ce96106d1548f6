"""What requests for many jobs at once may hold."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from api.planning_requests import Title
from api.requests import (
    Name,
    NewBackup,
    NewCheck,
    NewEnrol,
    NewHarden,
    NewPatch,
    NewPower,
    NewUnrescue,
    Request,
)
from managed.domain.servers import ServerStatus

MOST_SERVERS: Final = 500

Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,63}$")]

# What takes one server away from its owner, or one server's backup, is asked for one by one.
BulkJob = Annotated[
    NewPatch | NewHarden | NewBackup | NewCheck | NewEnrol | NewPower | NewUnrescue,
    Field(discriminator="kind"),
]


class ServerChoice(Request):
    """Which servers are meant: `names`, or all that answer to every filter given. `all` is for
    really every one that the caller sees.
    """

    names: list[Reference] | None = Field(
        None, min_length=1, max_length=MOST_SERVERS, description="Names or ids."
    )
    customer: Title | None = Field(None, description="A customer's id or name; for staff.")
    plan: Name | None = Field(None, description="A plan's id or name; for staff.")
    node: Name | None = Field(None, description="A node's id or name; for staff.")
    status: ServerStatus | None = None
    all: bool = False

    @model_validator(mode="after")
    def _says_which(self) -> ServerChoice:
        filters = [self.customer, self.plan, self.node, self.status]
        has_filter = any(value is not None for value in filters)
        if [self.names is not None, has_filter, self.all].count(True) != 1:
            raise ValueError('give either names, or filters, or {"all": true}')
        return self


class BulkJobs(Request):
    """The same job for many servers, by name, at most `limit` of them at a time."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job": {"kind": "patch", "only_security": True},
                    "servers": {"plan": "managed-plus", "status": "active"},
                    "dry_run": True,
                }
            ]
        }
    )
    job: BulkJob
    servers: ServerChoice
    dry_run: bool = Field(False, description="Only say what would happen; change nothing.")
    limit: int = Field(MOST_SERVERS, ge=1, le=MOST_SERVERS)
    cursor: Reference | None = Field(None, description="`next` of the answer before.")

    @model_validator(mode="after")
    def _goes_on_by_filters_alone(self) -> BulkJobs:
        if self.cursor is not None and self.servers.names is not None:
            raise ValueError("names are all asked for at once; they take no cursor")
        return self
