"""What shells complete: names that the service knows. Whoever presses Tab waits a moment at most,
and sees nothing when the service does not answer.
"""

from __future__ import annotations

from typing import Any, Final

from managed.cli.connection import client
from managed.client import ApiProblem, ManagedClient
from managed.domain.errors import ManagedError

_PATIENCE_SECONDS: Final = 1.0
_MOST: Final = 50


def server_names(incomplete: str) -> list[str]:
    """Servers whose name begins so."""
    return _names("/v1/servers", incomplete)


def plan_names(incomplete: str) -> list[str]:
    """Plans whose name begins so."""
    return _names("/v1/plans", incomplete)


def customer_names(incomplete: str) -> list[str]:
    """Customers whose name begins so."""
    return _names("/v1/customers", incomplete)


def _names(path: str, begin: str) -> list[str]:
    try:
        with client(timeout=_PATIENCE_SECONDS) as service:
            following = service.get(path, limit=_MOST, cursor=begin or None)["items"]
            found = [*_exactly(service, path, begin), *following]
    except ManagedError:
        return []
    return [one["name"] for one in found if one["name"].startswith(begin)]


def _exactly(service: ManagedClient, path: str, name: str) -> list[dict[str, Any]]:
    """The one with just this name: lists go on after it."""
    if not name:
        return []
    try:
        return [service.get(f"{path}/{name}")]
    except ApiProblem:
        return []
