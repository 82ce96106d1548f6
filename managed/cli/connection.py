"""The service that commands talk to: the one of this environment's settings."""

from __future__ import annotations

import getpass
import os

from managed.client import ManagedClient
from managed.domain.errors import MissingRequirement
from managed.settings import settings


def client() -> ManagedClient:
    """A client with the installation's token; says who asks, for the record."""
    address = f"http://{settings().listen_address}:{settings().listen_port}"
    return ManagedClient(address, installation_token(), requested_by=_login_name())


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
            hint="Start the service with `make serve` first, or set MANAGED_STATE_DIR.",
        ) from error


def _login_name() -> str:
    """Who typed the command, also under sudo."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
