"""What requests that change something may hold. A field that is left out, or null, stays."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from api.examples import HOST_KEY
from api.moments import Day
from api.planning_requests import Email, Title
from api.requests import Address, Line, Name, Port, Request
from managed.domain.customers import PlanKind
from managed.domain.windows import MINUTES


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [{**fields}]})


class Change(Request):
    @model_validator(mode="after")
    def _changes_something(self) -> Change:
        if not self.model_dump(exclude_none=True):
            raise ValueError("this changes nothing")
        return self


class CustomerChange(Change):
    model_config = _example(email="office@example.org")
    name: Title | None = None
    email: Email | None = None


class PlanChange(Change):
    model_config = _example(only_security=True)
    name: Name | None = None
    kind: PlanKind | None = None
    only_security: bool | None = None


class WindowChange(Change):
    """A changed window counts as a new one: from its next start on."""

    model_config = _example(rule="FREQ=WEEKLY;BYDAY=SU;BYHOUR=3", minutes=240)
    rule: Annotated[str, StringConstraints(max_length=500)] | None = None
    zone: Annotated[str, StringConstraints(max_length=63)] | None = None
    minutes: Annotated[int, Field(ge=MINUTES[0], le=MINUTES[1])] | None = None
    starts_on: Day | None = None


class ServerChangeRequest(Change):
    """`host_key` pins another host key in the place of the one whose fingerprint is given with
    `replaced_fingerprint` (SHA256:…), say after a new installation. Compare it over
    another channel.
    """

    model_config = _example(host_key=HOST_KEY, replaced_fingerprint="SHA256:" + "A" * 43)
    name: Name | None = None
    address: Address | None = None
    ssh_port: Port | None = None
    host_key: Line | None = None
    replaced_fingerprint: Annotated[str, StringConstraints(max_length=100)] | None = None
