"""The service that commands talk to: the one that the settings name, or this installation's."""

from __future__ import annotations

import getpass
import os
from contextvars import ContextVar
from typing import Final

from managed.client import ANSWER_SECONDS, ManagedClient
from managed.domain.errors import MissingRequirement
from managed.settings import settings

_reason: Final = ContextVar("reason", default="")


def because(reason: str) -> None:
    """Have all that this command asks for say why, for the audit log."""
    _reason.set(reason)


def client(timeout: float = ANSWER_SECONDS) -> ManagedClient:
    """A client with the user's own token (MANAGED_TOKEN), else with the installation's; says who
    asks and why, for the record.
    """
    token = settings().token.get_secret_value() or installation_token()
    return ManagedClient(
        _address(), token, requested_by=_login_name(), reason=_reason.get(), timeout=timeout
    )


def open_client() -> ManagedClient:
    """A client without a token, for what everybody may read."""
    return ManagedClient(_address(), token="")


def installation_token() -> str:
    """The token of the installation; MissingRequirement where there is none, or not for us."""
    path = settings().api_token
    try:
        return path.read_text(encoding="ascii").strip()
    except PermissionError as error:
        raise MissingRequirement(
            f"the token file {path} is not yours to read", hint="Run this again with sudo -E."
        ) from error
    except OSError as error:
        raise MissingRequirement(
            f"there is no installation at {settings().state}: {path} is missing",
            hint="Start the service with `make serve` first, or set MANAGED_STATE_DIR. From another"
            " machine set MANAGED_API_URL and MANAGED_TOKEN.",
        ) from error


def _address() -> str:
    chosen = settings()
    return chosen.api_url or f"http://{chosen.listen_address}:{chosen.listen_port}"


def _login_name() -> str:
    """Who typed the command, also under sudo."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
