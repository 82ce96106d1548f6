"""Who owns servers, and what their plans cover."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from managed.domain.errors import NotSupported
from managed.domain.jobs import JobKind
from managed.domain.servers import Server


class PlanKind(StrEnum):
    """On a managed plan we look after the system; on an unmanaged one the customer does, and we
    only run the machine.
    """

    MANAGED = "managed"
    UNMANAGED = "unmanaged"


@dataclass(frozen=True)
class Plan:
    """What is covered. `only_security` leaves all other updates out of the nightly patch."""

    plan_id: str
    name: str
    kind: PlanKind
    only_security: bool = False


@dataclass(frozen=True)
class Customer:
    customer_id: str
    name: str
    email: str


_ONLY_MANAGED: Final = frozenset(
    {
        JobKind.PATCH,
        JobKind.HARDEN,
        JobKind.BACKUP,
        JobKind.RESTORE,
        JobKind.RESTORE_FILES,
        JobKind.CHECK,
    }
)


def plan_refusal(server: Server, plan: Plan | None, kind: JobKind) -> NotSupported | None:
    """Why the server's plan does not cover such a job, or None. One without a plan is the
    provider's own, and covered.
    """
    if plan is None or plan.kind is PlanKind.MANAGED or kind not in _ONLY_MANAGED:
        return None
    return NotSupported(
        f"{server.name} cannot have a {kind} job: its plan {plan.name} is unmanaged",
        hint="Its customer looks after the system. PUT /v1/servers/{server}/placement changes the"
        " plan.",
        server_id=server.server_id,
        plan_id=plan.plan_id,
    )
