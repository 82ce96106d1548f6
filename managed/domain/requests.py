"""Requests: what a ticket asks for, what is proposed for it, and what became of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from managed.domain.errors import Conflict, InvalidInput, Json, ManagedError
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.named_paths import checked_paths
from managed.domain.tickets import Ticket

REQUESTS_KEYS: Final = "request:"
"""With this begin the run keys of the jobs that requests start; nobody else may use one."""


class ActionKind(StrEnum):
    """What can be done for a ticket. `NONE` is left to a person."""

    RESTORE_FILES = "restore-files"
    RESTORE_SERVER = "restore-server"
    RESCUE = "rescue"
    PATCH = "patch"
    NONE = "none"

    @property
    def is_restore(self) -> bool:
        return self in (ActionKind.RESTORE_FILES, ActionKind.RESTORE_SERVER)


_JOB_KINDS: Final[Mapping[ActionKind, JobKind]] = {
    ActionKind.RESTORE_FILES: JobKind.RESTORE_FILES,
    ActionKind.RESTORE_SERVER: JobKind.RESTORE,
    ActionKind.RESCUE: JobKind.RESCUE,
    ActionKind.PATCH: JobKind.PATCH,
}


@dataclass(frozen=True)
class Action:
    """`paths` are those of RESTORE_FILES; `as_of` is a restore's: the newest verified backup not
    after it, None for the newest of all. Files come back beside the present ones: what a ticket
    asks for overwrites nothing.
    """

    kind: ActionKind
    paths: tuple[str, ...] = ()
    as_of: datetime | None = None

    def job_parameters(self) -> dict[str, object]:
        parameters: dict[str, object] = {}
        if self.as_of is not None:
            parameters["as_of"] = self.as_of.isoformat()
        if self.kind is ActionKind.RESTORE_FILES:
            parameters |= {"paths": list(self.paths), "target": "beside"}
        return parameters

    def as_json(self) -> dict[str, Json]:
        return {
            "kind": self.kind.value,
            "paths": list[Json](self.paths),
            "as_of": self.as_of.isoformat() if self.as_of else None,
        }


def checked_action(kind: ActionKind, paths: Sequence[str], as_of: datetime | None) -> Action:
    """An action that can be carried out; InvalidInput says what is wrong with it."""
    if kind is ActionKind.NONE:
        raise InvalidInput(
            "there is nothing to approve: no action is proposed",
            hint="Give the action that you have chosen, or refuse the request.",
            field="action",
        )
    if (kind is ActionKind.RESTORE_FILES) != bool(paths):
        raise InvalidInput(
            "a restore of files needs paths, and nothing else takes them", field="action.paths"
        )
    if as_of is not None and not kind.is_restore:
        raise InvalidInput("only a restore has a time", field="action.as_of")
    return Action(kind, checked_paths(paths), as_of)


def job_kind_for(action: Action) -> JobKind:
    """The kind of job that carries the action out."""
    return _JOB_KINDS[action.kind]


class RequestStatus(StrEnum):
    """`open` waits for a person; `approved` has a job that has not ended; the rest is final."""

    OPEN = "open"
    APPROVED = "approved"
    REFUSED = "refused"
    DONE = "done"
    FAILED = "failed"

    @classmethod
    def after(cls, job: JobStatus) -> RequestStatus:
        """What a request is when its job has ended so."""
        return cls.DONE if job is JobStatus.SUCCEEDED else cls.FAILED


@dataclass(frozen=True)
class Proposal:
    """`rule` is the name of the rule that made it, `why` says for support staff what it goes by."""

    action: Action
    rule: str
    why: str


@dataclass(frozen=True)
class Note:
    """A later article of the same ticket, that came while its request was open."""

    article_id: int
    sender: str
    text: str
    written_at: datetime


@dataclass(frozen=True)
class Decision:
    """What a person, or the check of the sender, has made of a request. `action` is what was
    approved; `reason` is why it was refused.
    """

    by: str
    at: datetime
    action: Action | None = None
    reason: str = ""


@dataclass(frozen=True)
class Request:
    """`server_id` is None while nobody has said which server is meant. `customer_id` is whose
    request it is: None for one of a stranger, which no customer may see.
    """

    request_id: str
    ticket: Ticket
    proposal: Proposal
    status: RequestStatus
    created_at: datetime
    server_id: str | None = None
    customer_id: str | None = None
    decision: Decision | None = None
    job_id: str | None = None
    ended_at: datetime | None = None
    notes: tuple[Note, ...] = field(default=())

    @property
    def run_key(self) -> str:
        """Makes the job of this request the only one of its kind on its server."""
        return f"{REQUESTS_KEYS}{self.request_id}"


def approval_refusal(request: Request, action: Action, server_id: str) -> ManagedError | None:
    """Why this cannot be approved now, or None. What has been approved is approved again by the
    same action on the same server: that changes nothing.
    """
    decision = request.decision
    if request.status is RequestStatus.OPEN or decision is None:
        return None
    if request.status is RequestStatus.REFUSED:
        return _decided(request, "refused")
    if (decision.action, request.server_id) == (action, server_id):
        return None
    return _decided(request, "approved with another action or for another server")


def refusal_refusal(request: Request) -> ManagedError | None:
    """Why it cannot be refused now, or None. What is refused already stays so."""
    if request.status in (RequestStatus.OPEN, RequestStatus.REFUSED):
        return None
    return _decided(request, "approved")


def _decided(request: Request, how: str) -> Conflict:
    by = request.decision.by if request.decision else ""
    return Conflict(
        f"the request was {how}, by {by}",
        hint=f"Look at it first: GET /v1/requests/{request.request_id}",
        status=request.status.value,
        job_id=request.job_id,
    )
