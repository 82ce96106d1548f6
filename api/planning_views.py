"""Answers about customers, plans, windows and the pause."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from api import examples
from api.views import View, shown_as
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.jobs import JobKind
from managed.domain.surveys import Survey, SurveyOutcome
from managed.domain.windows import (
    Opening,
    Window,
    WindowOwner,
    next_opening,
    rule_limitation,
)
from managed.storage.windows import MissedWindow, Pause


class CustomerView(View):
    model_config = shown_as(examples.CUSTOMER)
    id: str
    name: str
    email: str

    @classmethod
    def of(cls, customer: Customer) -> CustomerView:
        return cls(id=customer.customer_id, name=customer.name, email=customer.email)


class PlanView(View):
    model_config = shown_as(examples.PLAN)
    id: str
    name: str
    kind: PlanKind
    only_security: bool

    @classmethod
    def of(cls, plan: Plan) -> PlanView:
        return cls(
            id=plan.plan_id, name=plan.name, kind=plan.kind, only_security=plan.only_security
        )


class OpeningView(View):
    model_config = shown_as(examples.OPENING)
    starts_at: datetime
    ends_at: datetime

    @classmethod
    def of(cls, opening: Opening) -> OpeningView:
        return cls(starts_at=opening.starts_at, ends_at=opening.ends_at)


class WindowView(View):
    """A window. `next_opening` is null when it does not open, and `limitation` says why: its rule
    has no start within nine years, its plan is unmanaged, its server is not covered, or none of its
    customer's servers is.
    """

    model_config = shown_as(examples.WINDOW)
    id: str
    owner: WindowOwner
    owner_id: str
    job_kind: JobKind
    rule: str
    zone: str
    minutes: int
    starts_on: date
    next_opening: OpeningView | None
    limitation: str | None

    @classmethod
    def of(cls, window: Window, now: datetime, owner_limitation: str | None) -> WindowView:
        limitation = owner_limitation or rule_limitation(window, now)
        opening = None if limitation else next_opening(window, now)
        return cls(
            id=window.window_id,
            owner=window.owner,
            owner_id=window.owner_id,
            job_kind=window.job_kind,
            rule=window.rule,
            zone=window.zone,
            minutes=window.minutes,
            starts_on=window.starts_on,
            next_opening=OpeningView.of(opening) if opening else None,
            limitation=limitation,
        )


class MissedWindowView(View):
    """An opening that came to its end and started nothing on this server, and why."""

    model_config = shown_as(examples.MISSED_WINDOW)
    server_id: str
    job_kind: JobKind
    starts_at: datetime
    ends_at: datetime
    reason: str
    recorded_at: datetime

    @classmethod
    def of(cls, missed: MissedWindow) -> MissedWindowView:
        return cls(
            server_id=missed.server_id,
            job_kind=missed.job_kind,
            starts_at=missed.opening.starts_at,
            ends_at=missed.opening.ends_at,
            reason=missed.reason,
            recorded_at=missed.recorded_at,
        )


class SurveyView(View):
    """What was found on a server when its window opened, before any job was started: work and
    unknown start one. `found` has counts, of lists the first twenty names, and how old the package
    lists are; it is empty when nothing came back. `detail` says the same as a sentence.
    """

    model_config = shown_as(examples.SURVEY)
    server_id: str
    job_kind: JobKind
    starts_at: datetime
    ends_at: datetime
    asked_at: datetime
    outcome: SurveyOutcome
    detail: str
    found: dict[str, Any]

    @classmethod
    def of(cls, survey: Survey) -> SurveyView:
        return cls(
            server_id=survey.server_id,
            job_kind=survey.job_kind,
            starts_at=survey.opening.starts_at,
            ends_at=survey.opening.ends_at,
            asked_at=survey.asked_at,
            outcome=survey.finding.outcome,
            detail=survey.finding.detail,
            found=dict(survey.finding.found),
        )


class PauseView(View):
    model_config = shown_as(examples.PAUSE)
    reason: str
    by: str
    since: datetime

    @classmethod
    def of(cls, pause: Pause) -> PauseView:
        return cls(reason=pause.reason, by=pause.by, since=pause.since)


class PauseStateView(View):
    """`pause` is null while everything is started as usual."""

    model_config = shown_as(examples.PAUSE_STATE)
    pause: PauseView | None
