"""Notifications: what people are told of, who is told, and when a message goes out.

Quiet otherwise: nothing that went well makes a message, nor does what somebody cancelled. The first
incident is told at once; what follows in the next minutes comes in one message, so that a night
with hundreds of failures makes a handful of mails and not hundreds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from managed.domain.errors import DeadlineExceeded, InvalidInput, Json
from managed.domain.jobs import Job, JobKind, StepStatus
from managed.domain.windows import Opening

QUIET_AFTER_A_MESSAGE: Final = timedelta(minutes=5)
LARGEST_DIGEST: Final = 500
"""Incidents in one message at most; more come in the next one."""

MOST_TARGETS: Final = 50
"""Of one customer, and of the staff: each incident is noted for every one of them."""

_FIRST_DELAY: Final = timedelta(minutes=1)
_LONGEST_DELAY: Final = timedelta(hours=1)
_PATIENCE: Final = timedelta(days=2)
_MAIL_ADDRESS: Final = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*"
)
_LONGEST_MAIL_ADDRESS: Final = 254
_LONGEST_FACT: Final = 2000


class Occasion(StrEnum):
    """What somebody may be told of."""

    JOB_FAILED = "job-failed"
    WINDOW_MISSED = "window-missed"


class TargetKind(StrEnum):
    EMAIL = "email"
    WEBHOOK = "webhook"


class Telling(StrEnum):
    """How far it has come to tell one target of one incident."""

    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given-up"


@dataclass(frozen=True)
class Target:
    """Somebody to tell: a mail address or a webhook's URL. Without `customer_id` it is the staff's,
    who hear of every server and all that is known; a customer hears of own servers only.
    """

    target_id: str
    kind: TargetKind
    address: str
    occasions: frozenset[Occasion]
    customer_id: str | None
    created_at: datetime

    @property
    def is_staffs(self) -> bool:
        return self.customer_id is None

    def hears_of(self, occasion: Occasion, customer_id: str | None) -> bool:
        """Is it told of such an incident on a server of this customer (None: the provider's)?"""
        return occasion in self.occasions and (self.is_staffs or self.customer_id == customer_id)


@dataclass(frozen=True)
class Incident:
    """Something to tell of, with its `facts` as they were then, as plain JSON without secrets.
    `subject_id` makes it the only one of its occasion on its server.
    """

    occasion: Occasion
    server_id: str
    subject_id: str
    at: datetime
    facts: Mapping[str, Json]


@dataclass(frozen=True)
class Notice:
    """An incident as one target is told of it."""

    notice_id: str
    incident: Incident
    server_name: str


@dataclass(frozen=True)
class Delivery:
    """One message to one target on its way: the `attempt`th try. Its id and the incidents in it
    stay the same at every try.
    """

    delivery_id: str
    target: Target
    attempt: int
    created_at: datetime


def failed_job(job: Job, gave_up: str, at: datetime) -> Incident:
    """The job ended as failed. `gave_up` is why its step was not tried once more, if known."""
    error = job.error or {}
    failed_steps = [step.name for step in job.steps if step.status is StepStatus.FAILED]
    left = [step.name for step in job.steps if step.status is StepStatus.UNDO_FAILED]
    if error.get("code") == DeadlineExceeded.code:
        gave_up = "the job's time is used up"
    return Incident(
        occasion=Occasion.JOB_FAILED,
        server_id=job.server_id,
        subject_id=job.job_id,
        at=at,
        facts={
            "job_id": job.job_id,
            "job_kind": job.kind.value,
            "requested_by": job.requested_by,
            "step": failed_steps[-1] if failed_steps else "",
            "error": {
                name: str(error.get(name) or "")[:_LONGEST_FACT]
                for name in ("code", "title", "detail", "hint")
            },
            "gave_up": gave_up,
            "not_undone": list[Json](left),
        },
    )


def missed_window(
    server_id: str, kind: JobKind, opening: Opening, reason: str, at: datetime
) -> Incident:
    """An opening came to its end and had started nothing on this server."""
    starts_at, ends_at = opening.starts_at.isoformat(), opening.ends_at.isoformat()
    return Incident(
        occasion=Occasion.WINDOW_MISSED,
        server_id=server_id,
        subject_id=f"{kind} {starts_at}",
        at=at,
        facts={
            "job_kind": kind.value,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "reason": reason[:_LONGEST_FACT],
        },
    )


def next_try(delivery: Delivery, now: datetime) -> datetime | None:
    """When a message that was not taken is tried again: after pauses that double, up to an hour;
    None when it has been tried for two days.
    """
    delay = min(_FIRST_DELAY * 2 ** min(delivery.attempt - 1, 20), _LONGEST_DELAY)
    return now + delay if now + delay < delivery.created_at + _PATIENCE else None


def is_mail_address(text: str) -> bool:
    """Is it one plain address: no name, no list, nothing that could end a header?"""
    return len(text) <= _LONGEST_MAIL_ADDRESS and _MAIL_ADDRESS.fullmatch(text) is not None


def checked_mail_address(address: str) -> str:
    """The address of somebody to tell."""
    if not is_mail_address(address):
        raise InvalidInput(
            "this is not one plain mail address",
            hint="Such as ops@example.org: without a name, in ASCII.",
            field="address",
        )
    return address
