"""Passwords as Argon2id hashes."""

from __future__ import annotations

import threading
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from managed.domain.secrets import Secret, new_password

_HASHER: Final = PasswordHasher()
# Each takes 64 MiB and a core for a moment: a crowd of strangers may not take all of the machine.
_AT_ONCE: Final = threading.BoundedSemaphore(2)


def hashed(password: Secret) -> str:
    with _AT_ONCE:
        return _HASHER.hash(password.reveal())


def is_right(password: str, password_hash: str | None) -> bool:
    """Is it the password of this hash? Without one (no such user, say) it is wrong, and finding
    that out takes as long.
    """
    with _AT_ONCE:
        try:
            _HASHER.verify(password_hash or _nobodys_hash(), password)
        except (VerificationError, InvalidHashError):
            return False
    return password_hash is not None


def is_outdated(password_hash: str) -> bool:
    """Was it made by weaker parameters than those of today?"""
    return _HASHER.check_needs_rehash(password_hash)


@cache
def _nobodys_hash() -> str:
    return _HASHER.hash(new_password().reveal())
