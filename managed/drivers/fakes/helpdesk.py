"""A helpdesk in memory. Keeps `Helpdesk`'s contract."""

from __future__ import annotations

from dataclasses import dataclass, field

from managed.domain.errors import HelpdeskRefused, HelpdeskUnavailable
from managed.domain.replies import Reply


@dataclass
class FakeHelpdesk:
    """`tickets` are the ids of those that exist; `is_up` and `loses_answers` (an answer arrives,
    and the caller never hears of it) are for tests to change.
    """

    tickets: set[int] = field(default_factory=set)
    articles: list[Reply] = field(default_factory=list)
    is_up: bool = True
    loses_answers: bool = False

    def find_reply(self, reply: Reply) -> str | None:
        self._require(reply.ticket_id)
        for number, article in enumerate(self.articles, 1):
            if (article.ticket_id, article.reference) == (reply.ticket_id, reply.reference):
                return str(number)
        return None

    def send(self, reply: Reply) -> str:
        self._require(reply.ticket_id)
        self.articles.append(reply)
        if self.loses_answers:
            raise HelpdeskUnavailable("the helpdesk does not answer")
        return str(len(self.articles))

    def _require(self, ticket_id: int) -> None:
        if not self.is_up:
            raise HelpdeskUnavailable("the helpdesk does not answer")
        if ticket_id not in self.tickets:
            raise HelpdeskRefused(f"there is no ticket {ticket_id}")
