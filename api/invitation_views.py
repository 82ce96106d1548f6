"""Answers about invitations to the panel."""

from __future__ import annotations

from datetime import datetime

from api import examples
from api.views import View, shown_as

_INVITATION = {
    "user_id": examples.USER["id"],
    "path": "/panel/invitation/6rTtWcJvZsQ0m2kHn3bYx8pLg5dAe7uFo1iRqVtX9wE",
    "url": "https://managed.example.org/panel/invitation/…",
    "expires_at": "2026-11-26T02:00:00Z",
}


class InvitationView(View):
    """`path` is the one-time link below the service's address, `url` the whole of it where the
    service knows its own address. It is shown this once and not kept: whoever has it can set the
    user's password.
    """

    model_config = shown_as(_INVITATION)
    user_id: str
    path: str
    url: str | None
    expires_at: datetime
