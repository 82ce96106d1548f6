"""The way back to whoever wrote a ticket."""

from __future__ import annotations

from typing import Protocol

from managed.domain.replies import Reply


class Helpdesk(Protocol):
    """Both raise HelpdeskUnavailable when nobody answers or nothing may be written at the moment
    (a wrong token is among that: somebody will mend it), HelpdeskRefused when it will stay so.
    """

    def find_reply(self, reply: Reply) -> str | None:
        """The id of the article that this answer has become, by its reference; None when it is not
        in its ticket.
        """
        ...

    def send(self, reply: Reply) -> str:
        """Add the answer to its ticket for the sender to read, and by e-mail if it has `to`;
        returns the article's id. Not idempotent: after an error nobody knows whether it is there,
        `find_reply` tells.
        """
        ...
