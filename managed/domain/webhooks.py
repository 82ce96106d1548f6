"""Webhooks: which URLs may be called, and how a receiver knows that a call is ours."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from managed.domain.errors import InvalidInput
from managed.domain.secrets import Secret
from managed.domain.servers import checked_address

SIGNATURE_HEADER: Final = "Managed-Signature"
DELIVERY_HEADER: Final = "Managed-Delivery"

Address = IPv4Address | IPv6Address

_LONGEST_URL: Final = 2000
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
# Python takes these for public: local NAT64, site-local addresses, IPv4 written as IPv6.
_OF_OWN_NETWORKS: Final = tuple(map(IPv6Network, ("64:ff9b:1::/48", "fec0::/10", "::/96")))


def signature(secret: Secret, at: datetime, body: bytes) -> str:
    """The value of the header `Managed-Signature`: the time, and an HMAC over time and body, so
    that an old call cannot be passed off as a new one.
    """
    moment = str(int(at.timestamp()))
    key = secret.reveal().encode()
    proof = hmac.new(key, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={proof}"


def checked_url(url: str) -> str:
    """The URL, if it may be a webhook's: https, without a password in it; http to loopback only.
    Where its name leads is looked at on every call (`address_refusal`).
    """
    parts = _parts(url)
    if parts is None:
        raise _refused("it is not a URL of a host")
    checked_address(parts.hostname or "")
    if parts.username is not None or parts.password is not None:
        raise _refused("it holds a password, which would be shown to everybody who may read it")
    if parts.fragment:
        raise _refused("it has a fragment, which no server is sent")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise _refused("it does not begin with https://")
    return url


def address_refusal(address: Address, *, may_be_private: bool) -> str | None:
    """Why nothing is sent to this address, or None. Inside our own network a webhook would reach
    what trusts it: databases, metadata services, this very API.
    """
    reached = _reached(address)
    if reached.is_multicast or reached.is_unspecified:
        return f"{address} is no host's address"
    is_ours = any(reached in network for network in _OF_OWN_NETWORKS)
    if may_be_private or (reached.is_global and not is_ours):
        return None
    return f"{address} is a private address"


def _reached(address: Address) -> Address:
    """Where packets for this address may come out: IPv4 addresses travel in IPv6 ones."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _parts(url: str) -> SplitResult | None:
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _refused(why: str) -> InvalidInput:
    return InvalidInput(
        f"this URL cannot be a webhook's: {why}",
        hint="Such as https://hooks.example.org/managed.",
        field="address",
    )
