"""Tells people what there is to tell. Mail servers and webhooks may be slow, dead or hostile: they
are called on threads of their own, and the clock waits for none of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from managed.domain.errors import ManagedError, NotDelivered
from managed.domain.notice_texts import message
from managed.domain.notifications import Delivery, TargetKind, next_try
from managed.wiring import Installation

log = structlog.get_logger()

KEPT: Final = timedelta(days=90)
# Each kind has its own, so that a dead mail server holds up no webhook.
_AT_ONCE: Final = {TargetKind.EMAIL: 4, TargetKind.WEBHOOK: 8}
# Longer than any notifier takes; who has not said by then what came of it was killed.
_BELIEVED_LOST: Final = timedelta(minutes=5)

Work = Callable[[], None]


class Notices:
    """`start` begins work and does not wait for it."""

    def __init__(
        self, installation: Installation, start: Callable[[Work], object] | None = None
    ) -> None:
        self._installation = installation
        self._start = start or _on_a_thread
        self._at_work: dict[TargetKind, set[str]] = {kind: set() for kind in TargetKind}
        self._lock = threading.Lock()

    def tell(self, now: datetime) -> None:
        """Put together what is to be told, and begin to deliver what is due."""
        outbox = self._installation.outbox
        outbox.gather(now)
        for kind in TargetKind:
            for delivery_id in outbox.due(kind, now, limit=_AT_ONCE[kind]):
                if self._may_begin(kind, delivery_id):
                    self._start(partial(self._deliver, kind, delivery_id))

    def forget(self, now: datetime) -> None:
        self._installation.outbox.forget(now - KEPT)

    def _may_begin(self, kind: TargetKind, delivery_id: str) -> bool:
        with self._lock:
            at_work = self._at_work[kind]
            if delivery_id in at_work or len(at_work) >= _AT_ONCE[kind]:
                return False
            at_work.add(delivery_id)
            return True

    def _deliver(self, kind: TargetKind, delivery_id: str) -> None:
        """One try. A clock that is killed between the other side's yes and our note of it delivers
        again: at least once, under the same id.
        """
        try:
            now = self._installation.clock()
            delivery = self._installation.outbox.take(delivery_id, now, _BELIEVED_LOST)
            if delivery is not None:
                self._try(delivery, now)
        except ManagedError as error:
            log.warning("notification_unrecorded", delivery_id=delivery_id, error=error.code)
        finally:
            with self._lock:
                self._at_work[kind].discard(delivery_id)

    def _try(self, delivery: Delivery, now: datetime) -> None:
        try:
            self._send(delivery, now)
        except ManagedError as error:
            self._note_failure(delivery, error.message)
            return
        except Exception:
            log.exception("notification_defect", delivery_id=delivery.delivery_id)
            self._note_failure(delivery, "a defect in managed; the clock's log tells more")
            return
        self._installation.outbox.mark_sent(delivery, self._installation.clock())
        log.info("notification_sent", delivery_id=delivery.delivery_id, attempt=delivery.attempt)

    def _send(self, delivery: Delivery, now: datetime) -> None:
        installation, target = self._installation, delivery.target
        notifier = installation.notifiers.get(target.kind)
        if notifier is None:
            raise NotDelivered("there is no mail server to send it: MANAGED_SMTP_HOST is not set")
        told = message(
            installation.outbox.notices(delivery), target, installation.settings.public_url
        )
        notifier.deliver(target, told, delivery.delivery_id, now)

    def _note_failure(self, delivery: Delivery, why: str) -> None:
        now = self._installation.clock()
        at = next_try(delivery, now)
        self._installation.outbox.mark_failed(delivery, why, at, now)
        log.warning(
            "notification_not_delivered" if at else "notification_given_up",
            delivery_id=delivery.delivery_id,
            target_id=delivery.target.target_id,
            attempt=delivery.attempt,
            detail=why,
        )


def _on_a_thread(work: Work) -> None:
    """One that keeps no process from ending: what it was at is tried again by the next."""
    threading.Thread(target=work, name="tell", daemon=True).start()
