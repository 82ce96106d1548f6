"""Where a server finds the backup gateway: a socket that the provider forwards to it."""

from __future__ import annotations

from typing import Final

GATEWAY_SOCKET: Final = "/run/managed/gateway.sock"


def repository_url(account: str) -> str:
    """restic's address of the repository, through the forwarded socket."""
    return f"rest:http+unix://{GATEWAY_SOCKET}:/{account}/"
