"""What requests about customers, plans, windows and the pause may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from api.moments import Day
from api.requests import Name, Request
from managed.domain.customers import PlanKind
from managed.domain.windows import MINUTES, WindowOwner

Title = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
# Who asked for something is recorded by their address, in columns of 253 characters.
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=253)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500)]


def _example(**fields: str | int) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [{**fields}]})


class NewCustomer(Request):
    model_config = _example(name="Anna Shop Ltd", email="anna@example.org")
    name: Title
    email: Email


class NewPlan(Request):
    """On a managed plan we look after the system, on an unmanaged one the customer does."""

    model_config = _example(name="managed-plus", kind="managed", only_security=False)
    name: Name
    kind: PlanKind = PlanKind.MANAGED
    only_security: bool = Field(False, description="Nightly patches leave other updates out.")


class Placement(Request):
    """Whose a server is, and on which plan: ids or names; null for nobody's and none."""

    model_config = _example(customer="Anna Shop Ltd", plan="managed-plus")
    customer: Title | None
    plan: Name | None


class NewWindow(Request):
    """When jobs of a kind start on the servers of a plan, of a customer, or on one server; of
    several the nearest to the server counts. A start in the hour that clocks skip comes as much
    later, one in the hour that comes twice is the first.
    """

    model_config = _example(
        owner="plan",
        owner_id="managed-plus",
        job_kind="patch",
        rule="FREQ=DAILY;BYHOUR=2",
        zone="Europe/Berlin",
        minutes=180,
    )
    owner: WindowOwner
    owner_id: Title = Field(description="The owner's id or name.")
    job_kind: Literal["patch", "backup"]
    rule: Annotated[str, StringConstraints(max_length=500)] = Field(
        description="An RFC 5545 recurrence rule, such as FREQ=WEEKLY;BYDAY=SU;BYHOUR=3."
    )
    zone: Annotated[str, StringConstraints(max_length=63)] = Field(
        "UTC", description="The name of a time zone in the IANA database."
    )
    minutes: int = Field(120, ge=MINUTES[0], le=MINUTES[1], description="How long it is open.")
    starts_on: Day | None = Field(
        None, description="The day from which the rule counts (INTERVAL, COUNT); today in its zone."
    )


class NewPause(Request):
    model_config = _example(reason="the new kernel does not boot")
    reason: Reason
