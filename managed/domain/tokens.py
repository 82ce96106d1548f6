"""API tokens: shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import re
import secrets as random_source
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from managed.domain.access import Permission, Principal, User
from managed.domain.errors import Forbidden, Unauthorized
from managed.domain.secrets import Secret

LONGEST_LIFE: Final = timedelta(days=366)
_FORM: Final = re.compile(r"mgd_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class ApiToken:
    """`token_id` is the readable part of the token; `scopes` of None permits what the user may."""

    token_id: str
    user_id: str
    name: str
    created_at: datetime
    expires_at: datetime
    scopes: frozenset[Permission] | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def limitation(self, now: datetime) -> str | None:
        """Why the token opens nothing, or None."""
        if self.revoked_at is not None:
            return f"it was revoked on {self.revoked_at:%F}"
        if now >= self.expires_at:
            return f"it expired on {self.expires_at:%F}"
        return None


def principal_of(user: User, token: ApiToken, now: datetime) -> Principal:
    """Who calls with this token; Unauthorized when it, or its user, does not count any more."""
    limitation = token.limitation(now)
    if user.disabled_at is not None:
        limitation = f"its user was disabled on {user.disabled_at:%F}"
    if limitation is not None:
        raise Unauthorized(
            f"this token opens nothing: {limitation}", hint="Ask an admin for a new one."
        )
    return Principal(
        user_id=user.user_id,
        name=user.email,
        role=user.role,
        customer_id=user.customer_id,
        scopes=token.scopes,
        token_id=token.token_id,
    )


def granted_scopes(
    maker: Principal, owner: User, wanted: frozenset[Permission] | None
) -> frozenset[Permission] | None:
    """The scopes of a new token for `owner`; None: all that the owner's role permits. Forbidden
    when it would let its maker do more than the maker's own token does.
    """
    if wanted is None and maker.scopes is None:
        return None
    allowed = owner.role.permissions & maker.permissions
    wanted = allowed if wanted is None else wanted
    beyond = sorted(wanted - allowed)
    if beyond:
        raise Forbidden(
            f"a token with the scope {beyond[0]} cannot be made here",
            hint="A token never permits more than its owner's role and its maker's own token.",
            permission=beyond[0].value,
        )
    return wanted


def new_token() -> tuple[str, Secret]:
    """A token's id and its whole text, with 256 bits that nobody can guess."""
    token_id = random_source.token_hex(6)
    return token_id, Secret(f"mgd_{token_id}_{random_source.token_urlsafe(32)}")


def token_id_of(text: str) -> str | None:
    """The id of what has the form of a token, or None."""
    match = _FORM.fullmatch(text)
    return match[1] if match else None


def token_hash(text: str) -> str:
    """What is stored of a token. A fast hash does: the text has 256 random bits."""
    return hashlib.sha256(text.encode()).hexdigest()
