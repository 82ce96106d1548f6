"""Signing in to the panel: passwords, sessions, and the links by which people set a password."""

from __future__ import annotations

import secrets as random_source
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from managed.domain.access import User
from managed.domain.errors import InvalidInput, NotFound
from managed.domain.secrets import Secret

SESSION_LIFE: Final = timedelta(hours=12)
SESSION_IDLE: Final = timedelta(hours=1)
INVITATION_LIFE: Final = timedelta(days=3)
SHORTEST_PASSWORD: Final = 12
# A bound on what is hashed for a stranger; no person types as much.
LONGEST_PASSWORD: Final = 256

FAILURES_COUNTED_FOR: Final = timedelta(minutes=15)
FAILURES_PER_USER: Final = 5
FAILURES_PER_ADDRESS: Final = 30


@dataclass(frozen=True)
class PanelSession:
    """A signed-in browser. `session_id` is the hash of what its cookie holds, `csrf` what its forms
    have to bring.
    """

    session_id: str
    user_id: str
    csrf: str
    created_at: datetime
    last_seen_at: datetime

    @property
    def expires_at(self) -> datetime:
        return self.created_at + SESSION_LIFE

    def limitation(self, user: User, now: datetime) -> str | None:
        """Why the session opens nothing, or None."""
        if user.disabled_at is not None:
            return f"the user was disabled on {user.disabled_at:%F}"
        if now >= self.expires_at:
            return f"it lasted {SESSION_LIFE.total_seconds() / 3600:.0f} hours"
        if now >= self.last_seen_at + SESSION_IDLE:
            return f"it was not used for {SESSION_IDLE.total_seconds() / 60:.0f} minutes"
        return None


@dataclass(frozen=True)
class Invitation:
    """A link that sets its user's password, once. `invitation_id` is the hash of its token."""

    invitation_id: str
    user_id: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None

    def limitation(self, user: User, now: datetime) -> str | None:
        """Why the link sets nothing, or None."""
        if user.disabled_at is not None:
            return f"its user was disabled on {user.disabled_at:%F}"
        if self.used_at is not None:
            return f"it was used on {self.used_at:%F}"
        if now >= self.expires_at:
            return f"it expired on {self.expires_at:%F}"
        return None


def require_open(limitation: str | None) -> None:
    """NotFound, with the reason, when an invitation sets nothing any more."""
    if limitation is not None:
        raise NotFound(
            f"this link opens nothing: {limitation}", hint="Ask an admin for a new invitation."
        )


def new_link_token() -> Secret:
    """256 bits that nobody can guess, fit for an address or a cookie."""
    return Secret(random_source.token_urlsafe(32))


def new_csrf() -> str:
    """What the forms of one session bring to show that they are ours."""
    return random_source.token_hex(32)


def checked_password(password: str, again: str, user: User) -> Secret:
    """A password that is fit for use; InvalidInput that says what is wrong with it."""
    if password != again:
        raise InvalidInput("the two passwords are not the same", field="password")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidInput(
            f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters; this one has"
            f" {len(password)}",
            hint="Several words that have nothing to do with each other are easy to keep in mind.",
            field="password",
        )
    if password.casefold() in (user.email.casefold(), user.name.casefold()):
        raise InvalidInput("this password is your name", field="password")
    return Secret(password)


def wait_after_failures(failures: Sequence[datetime], limit: int, now: datetime) -> timedelta:
    """How long nobody may try to sign in after these failures (in order); zero when they may."""
    recent = [at for at in failures if now - at < FAILURES_COUNTED_FOR]
    if len(recent) < limit:
        return timedelta(0)
    return recent[-limit] + FAILURES_COUNTED_FOR - now
