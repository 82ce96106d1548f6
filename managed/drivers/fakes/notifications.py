"""Keeps the contract of Notifier in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from managed.domain.errors import NotDelivered
from managed.domain.notice_texts import Message
from managed.domain.notifications import Target


@dataclass(frozen=True)
class Delivered:
    target: Target
    message: Message
    delivery_id: str


class FakeNotifier:
    """Has what was delivered; while `is_down` it takes nothing."""

    def __init__(self) -> None:
        self.delivered: list[Delivered] = []
        self.is_down = False

    def deliver(self, target: Target, message: Message, delivery_id: str, now: datetime) -> None:
        if self.is_down:
            raise NotDelivered("nobody is there")
        self.delivered.append(Delivered(target, message, delivery_id))
