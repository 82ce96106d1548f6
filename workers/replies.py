"""Ends requests whose jobs have ended, and sends the answers that wait."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final

import structlog

from managed.domain.errors import HelpdeskRefused, HelpdeskUnavailable, NotFound
from managed.domain.replies import next_try, reply_to, result_text
from managed.domain.requests import Request, RequestStatus
from managed.ports import Helpdesk
from managed.storage.replies import StoredReply
from managed.wiring import Installation

log = structlog.get_logger()

_SENT_AT_ONCE: Final = 2
_TRY_TAKES: Final = timedelta(minutes=2)
_KEEP_DELIVERIES: Final = timedelta(days=30)


class TicketReplies:
    """An answer is stored before it is sent and marked as sent after; a try is counted before it is
    made. Whoever finds a try that was begun looks into the ticket first: a clock that was killed
    between sending and marking has answered already.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._failures = 0
        self._sending: threading.Thread | None = None
        self._rests_until: datetime | None = None

    def end_requests(self, now: datetime) -> None:
        """Every request whose job has ended is ended, and its answer stored with that."""
        for request in self._installation.requests.to_end():
            try:
                self._end(request, now)
            except Exception:
                # What one server has told must not keep the others' senders waiting.
                log.exception("request_not_ended", request_id=request.request_id)

    def send(self, now: datetime) -> None:
        """Send what is due, a few at a time. Nothing while no helpdesk is set up."""
        helpdesk = self._installation.helpdesk
        if helpdesk is None or (self._rests_until is not None and now < self._rests_until):
            return
        for stored in self._installation.replies.due(now, _SENT_AT_ONCE):
            if self._installation.replies.begin(stored, now + _TRY_TAKES) and not self._try(
                helpdesk, stored, now
            ):
                return

    def send_beside(self, now: datetime) -> None:
        """The same beside the clock's other duties, which a slow helpdesk is not to hold up."""
        if self._sending is None or not self._sending.is_alive():
            self._sending = threading.Thread(target=self._send_logged, args=(now,), daemon=True)
            self._sending.start()

    def _send_logged(self, now: datetime) -> None:
        try:
            self.send(now)
        except Exception:
            log.exception("replies_not_sent")

    def forget_deliveries(self, now: datetime) -> None:
        self._installation.intake.forget_deliveries(now - _KEEP_DELIVERIES)

    def _end(self, request: Request, now: datetime) -> None:
        installation = self._installation
        job = installation.queue.job(str(request.job_id))
        try:
            name = installation.inventory.get(job.server_id).name
        except NotFound:
            name = "a server that is deleted by now"
        status = RequestStatus.after(job.status)
        reply = reply_to(request, result_text(name, job))
        installation.requests.end(request, status, reply, now)
        log.info("request_ended", request_id=request.request_id, status=status)

    def _try(self, helpdesk: Helpdesk, stored: StoredReply, now: datetime) -> bool:
        """Does the helpdesk answer? One that does not is left in peace for a while."""
        reply, replies = stored.reply, self._installation.replies
        try:
            found = helpdesk.find_reply(reply) if stored.attempts else None
            replies.sent(reply, found or helpdesk.send(reply), now)
        except HelpdeskUnavailable as error:
            self._failures += 1
            self._rests_until = next_try(self._failures, now)
            replies.put_off(reply, error.message, next_try(stored.attempts + 1, now))
            log.warning("helpdesk_unavailable", detail=error.message, hint=error.hint)
            return False
        except HelpdeskRefused as error:
            replies.give_up(reply, error.message)
            log.warning("reply_refused", request_id=reply.reference, detail=error.message)
        else:
            log.info("reply_sent", request_id=reply.reference, was_there=found is not None)
        self._failures, self._rests_until = 0, None
        return True
