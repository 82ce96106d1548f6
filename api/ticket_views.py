"""Answers about requests and deliveries of tickets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from api.examples import CUSTOMER_ID, JOB_ID, SERVER_ID
from api.views import View, shown_as
from managed.domain.requests import Action, ActionKind, Decision, Note, Request, RequestStatus
from managed.storage.intake import Outcome, Taken
from managed.storage.replies import StoredReply

REQUEST_ID: Final = "0c9b8a7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d"
_ACTION: Final[Mapping[str, Any]] = {
    "kind": "restore-server",
    "paths": [],
    "as_of": "2026-11-23T17:00:00Z",
}
_NOTE: Final[Mapping[str, Any]] = {
    "article_id": 105,
    "sender": "anna@example.org",
    "text": "It is urgent.",
    "written_at": "2026-11-24T09:40:00Z",
}
_DECISION: Final[Mapping[str, Any]] = {
    "by": "kim (api-token)",
    "at": "2026-11-24T09:45:00Z",
    "action": _ACTION,
    "reason": "",
}
_REPLY: Final[Mapping[str, Any]] = {
    "state": "sent",
    "text": "Done: restore of the whole server on shop.",
    "attempts": 1,
    "sent_at": "2026-11-24T10:21:07Z",
    "error": "",
}
_REQUEST: Final[Mapping[str, Any]] = {
    "id": REQUEST_ID,
    "status": "done",
    "ticket_id": 81,
    "ticket_number": "10081",
    "title": "Shop is broken",
    "sender": "anna@example.org",
    "server_id": SERVER_ID,
    "customer_id": CUSTOMER_ID,
    "proposal": _ACTION,
    "rule": "restore",
    "why": 'It asks for something back ("restore"). It means the server as a whole. As of'
    ' 2026-11-23 18:00 Europe/Berlin ("yesterday 18:00"): the newest verified backup not after it'
    " is taken. The ticket's server attribute says shop.",
    "decision": _DECISION,
    "job_id": JOB_ID,
    "created_at": "2026-11-24T09:30:02Z",
    "ended_at": "2026-11-24T10:21:04Z",
}


class ActionView(View):
    model_config = shown_as(_ACTION)
    kind: ActionKind
    paths: list[str]
    as_of: datetime | None

    @classmethod
    def of(cls, action: Action) -> ActionView:
        return cls(kind=action.kind, paths=list(action.paths), as_of=action.as_of)


class DecisionView(View):
    model_config = shown_as(_DECISION)
    by: str
    at: datetime
    action: ActionView | None
    reason: str

    @classmethod
    def of(cls, decision: Decision) -> DecisionView:
        return cls(
            by=decision.by,
            at=decision.at,
            action=ActionView.of(decision.action) if decision.action else None,
            reason=decision.reason,
        )


class NoteView(View):
    """A later article of the ticket, that came while the request was open."""

    model_config = shown_as(_NOTE)
    article_id: int
    sender: str
    text: str
    written_at: datetime

    @classmethod
    def of(cls, note: Note) -> NoteView:
        return cls(
            article_id=note.article_id,
            sender=note.sender,
            text=note.text,
            written_at=note.written_at,
        )


class ReplyView(View):
    """The answer to the ticket: `waiting` is tried again, `given-up` is not, see `error`."""

    model_config = shown_as(_REPLY)
    state: Literal["waiting", "sent", "given-up"]
    text: str
    attempts: int
    sent_at: datetime | None
    error: str

    @classmethod
    def of(cls, stored: StoredReply) -> ReplyView:
        return cls(
            state="sent" if stored.sent_at else "waiting" if stored.due_at else "given-up",
            text=stored.reply.body,
            attempts=stored.attempts,
            sent_at=stored.sent_at,
            error=stored.error,
        )


class RequestView(View):
    """What a ticket asks for. `proposal` is what a rule proposes and `why` says what it goes by;
    `decision` is what staff, or the check of the sender, made of it.
    """

    model_config = shown_as(_REQUEST)
    id: str
    status: RequestStatus
    ticket_id: int
    ticket_number: str
    title: str
    sender: str
    server_id: str | None
    customer_id: str | None
    proposal: ActionView
    rule: str
    why: str
    decision: DecisionView | None
    job_id: str | None
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, request: Request) -> RequestView:
        return cls(**_fields(request))


class RequestDetailView(RequestView):
    """A request with the text that it was made of, as plain text, and what came after."""

    model_config = shown_as(
        {
            **_REQUEST,
            "text": "Please restore the whole server as it was yesterday 18:00.",
            "written_at": "2026-11-24T09:30:00Z",
            "notes": [_NOTE],
            "reply": _REPLY,
        }
    )
    text: str
    written_at: datetime
    notes: list[NoteView]
    reply: ReplyView | None

    @classmethod
    def with_reply(cls, request: Request, stored: StoredReply | None) -> RequestDetailView:
        return cls(
            **_fields(request),
            text=request.ticket.text,
            written_at=request.ticket.written_at,
            notes=[NoteView.of(note) for note in request.notes],
            reply=ReplyView.of(stored) if stored else None,
        )


class DeliveryView(View):
    """What a delivery led to: a new request, a note to the open one of its ticket, or nothing
    (`known`: the article came before; `unread`: it asks nothing of us).
    """

    model_config = shown_as({"outcome": "request", "request_id": REQUEST_ID})
    outcome: Outcome
    request_id: str | None

    @classmethod
    def of(cls, taken: Taken) -> DeliveryView:
        return cls(outcome=taken.outcome, request_id=taken.request_id)


def _fields(request: Request) -> dict[str, Any]:
    ticket, proposal, decision = request.ticket, request.proposal, request.decision
    return {
        "id": request.request_id,
        "status": request.status,
        "ticket_id": ticket.ticket_id,
        "ticket_number": ticket.number,
        "title": ticket.title,
        "sender": ticket.sender,
        "server_id": request.server_id,
        "customer_id": request.customer_id,
        "proposal": ActionView.of(proposal.action),
        "rule": proposal.rule,
        "why": proposal.why,
        "decision": DecisionView.of(decision) if decision else None,
        "job_id": request.job_id,
        "created_at": request.created_at,
        "ended_at": request.ended_at,
    }
