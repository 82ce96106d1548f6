"""Too many failed sign-ins, from one address or for one user from there, have to wait."""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from managed.domain.sign_in import (
    FAILURES_COUNTED_FOR,
    FAILURES_PER_ADDRESS,
    FAILURES_PER_USER,
    wait_after_failures,
)

_MOST_KEYS: Final = 20_000

_Key = tuple[str, str]


class Throttle:
    """In memory, for the one process of the API: after a restart everybody starts anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: OrderedDict[_Key, list[datetime]] = OrderedDict()

    def begin(self, email: str, address: str, now: datetime) -> timedelta:
        """Count a try, as failed until `succeeded` says otherwise: those that come at the same
        moment count too. Returns how long to wait instead; zero for go on.
        """
        keys = _keys(email, address)
        with self._lock:
            wait = max(
                wait_after_failures(self._failures.get(key, []), limit, now)
                for key, limit in keys.items()
            )
            if wait <= timedelta(0):
                for key, limit in keys.items():
                    self._count(key, limit, now)
        return wait

    def succeeded(self, email: str, address: str) -> None:
        """The last try was none to hold against them, nor those before it against this user."""
        user, network = _keys(email, address)
        with self._lock:
            self._failures.pop(user, None)
            if tries := self._failures.get(network):
                tries.pop()

    def _count(self, key: _Key, limit: int, now: datetime) -> None:
        tries = [at for at in self._failures.get(key, []) if now - at < FAILURES_COUNTED_FOR]
        self._failures[key] = [*tries, now][-limit:]
        self._failures.move_to_end(key)
        while len(self._failures) > _MOST_KEYS:
            self._failures.popitem(last=False)


def _keys(email: str, address: str) -> dict[_Key, int]:
    """What failures are counted for, and how many it may have; the user's first."""
    network = _network(address)
    return {(email.lower(), network): FAILURES_PER_USER, ("", network): FAILURES_PER_ADDRESS}


def _network(address: str) -> str:
    """The address; of IPv6 the /64, since whoever has one address there has all of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
