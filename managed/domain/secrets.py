"""Values that must not be seen: a type that cannot be logged, printed or serialised by accident."""

from __future__ import annotations

import secrets as random_source
from enum import StrEnum
from typing import NoReturn


class SecretPurpose(StrEnum):
    """What a stored secret is for."""

    LOGIN_KEY = "login-key"
    RESCUE_HOST_KEY = "rescue-host-key"
    REPOSITORY_PASSWORD = "repository-password"
    GATEWAY_PASSWORD = "gateway-password"
    WEBHOOK_KEY = "webhook-key"


class Secret:
    """Holds text that only `reveal()` gives back.

    `str`, `repr` and format show asterisks; pickling raises `TypeError`, so that a secret cannot
    travel in a message, and JSON encoders refuse it because it is no plain type.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and random_source.compare_digest(
            self._value.encode(), other._value.encode()
        )

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


def new_password(length_bytes: int = 32) -> Secret:
    """A random password of URL-safe characters with `length_bytes` bytes of entropy."""
    return Secret(random_source.token_urlsafe(length_bytes))
