"""How messages leave."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from managed.domain.notice_texts import Message
from managed.domain.notifications import Target


class Notifier(Protocol):
    """One way to tell people; a target's kind says which."""

    def deliver(self, target: Target, message: Message, delivery_id: str, now: datetime) -> None:
        """Hand the message over; it returns when the other side has taken it, and NotDelivered says
        why it has not. It comes to an end within two minutes, also when the other side is silent.

        Not idempotent, and it cannot be: an answer may be lost. The other side knows a message that
        it has had by the `delivery_id`, which every try of it carries.
        """
        ...
