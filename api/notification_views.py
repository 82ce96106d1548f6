"""Answers about notifications. A webhook's secret is in the one that made it, and in no other."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from api import notification_examples as examples
from api.views import View, shown_as
from managed.domain.errors import NotDelivered
from managed.domain.notifications import Occasion, Target, TargetKind, Telling
from managed.storage.notification_records import NotificationRecord


class TargetView(View):
    model_config = shown_as(examples.TARGET)
    id: str
    kind: TargetKind
    address: str
    occasions: list[Occasion]
    customer_id: str | None
    created_at: datetime

    @classmethod
    def of(cls, target: Target) -> TargetView:
        return cls(**_fields(target))


class NewTargetView(View):
    """A target that has just been added. `secret` signs a webhook's calls and is shown this once;
    null for a mail address.
    """

    model_config = shown_as(examples.NEW_TARGET)
    id: str
    kind: TargetKind
    address: str
    occasions: list[Occasion]
    customer_id: str | None
    created_at: datetime
    secret: str | None

    @classmethod
    def of_new(cls, target: Target, secret: str | None) -> NewTargetView:
        return cls(**_fields(target), secret=secret)


class TrialView(View):
    """Was the test message taken? If not, `detail` says why and `hint` what to do. A mail server
    that takes a mail may still not bring it to anybody.
    """

    model_config = shown_as(examples.TRIAL)
    delivered: bool
    detail: str
    hint: str

    @classmethod
    def of(cls, error: NotDelivered | None) -> TrialView:
        if error is None:
            return cls(delivered=True, detail="the other side has taken it", hint="")
        return cls(delivered=False, detail=error.message, hint=error.hint)


class NotificationView(View):
    """What one target is told of one incident. `delivery_id` is null until it is in a message."""

    model_config = shown_as(examples.NOTIFICATION)
    id: str
    target_id: str
    occasion: Occasion
    server_id: str
    at: datetime
    status: Telling
    delivery_id: str | None
    attempts: int
    next_attempt_at: datetime | None
    ended_at: datetime | None
    last_error: str

    @classmethod
    def of(cls, record: NotificationRecord) -> NotificationView:
        return cls(
            id=record.notice.notice_id,
            target_id=record.target_id,
            occasion=record.notice.incident.occasion,
            server_id=record.notice.incident.server_id,
            at=record.notice.incident.at,
            status=record.status,
            delivery_id=record.delivery_id or None,
            attempts=record.attempts,
            next_attempt_at=record.next_attempt_at,
            ended_at=record.ended_at,
            last_error=record.last_error,
        )


def _fields(target: Target) -> dict[str, Any]:
    return {
        "id": target.target_id,
        "kind": target.kind,
        "address": target.address,
        "occasions": sorted(target.occasions),
        "customer_id": target.customer_id,
        "created_at": target.created_at,
    }
