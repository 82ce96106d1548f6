"""Webhooks over HTTP: implements `managed.ports.Notifier`.

A customer chooses the URL, so it is treated as an enemy's: its name is resolved here, once, and the
very address that was found fit is called, so that no other answer of the name server can lead into
our network; redirects are not followed, nothing of the answer but its status is told, and all of it
has an end.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from ipaddress import ip_address
from typing import Final

import httpx

from managed.domain.errors import NotDelivered
from managed.domain.notice_texts import Message
from managed.domain.notifications import Target
from managed.domain.secrets import Secret
from managed.domain.webhooks import (
    DELIVERY_HEADER,
    SIGNATURE_HEADER,
    Address,
    address_refusal,
    signature,
)

_WHOLE_SECONDS: Final = 15.0
# httpx knows no limit on the whole, and its own are not to come before ours.
_EACH_SECONDS: Final = 2 * _WHOLE_SECONDS
_USER_AGENT: Final = "managed-webhook/1"


class WebhookNotifier:
    """`key_of` knows the secret of each target. `staff_may_be_private` lets the staff's webhooks,
    never customers', lead to private addresses.
    """

    def __init__(
        self,
        key_of: Callable[[str], Secret],
        *,
        staff_may_be_private: bool,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._key_of = key_of
        self._staff_may_be_private = staff_may_be_private
        self._tls = tls or ssl.create_default_context()

    def deliver(self, target: Target, message: Message, delivery_id: str, now: datetime) -> None:
        body = json.dumps({"id": delivery_id, **message.document}).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            DELIVERY_HEADER: delivery_id,
            SIGNATURE_HEADER: signature(self._key_of(target.target_id), now, body),
        }
        may_be_private = target.is_staffs and self._staff_may_be_private
        status = asyncio.run(self._post(target.address, headers, body, may_be_private))
        if not 200 <= status < 300:
            raise NotDelivered(
                f"the webhook answered with HTTP status {status}",
                hint="It is to answer with a status from 200 to 299; redirects are not followed.",
            )

    async def _post(
        self, address: str, headers: dict[str, str], body: bytes, may_be_private: bool
    ) -> int:
        """The status of the answer; its body is not read. A limit on the whole: one on each read
        would let an answer of single bytes go on for hours.
        """
        try:
            url = httpx.URL(address)
            async with asyncio.timeout(_WHOLE_SECONDS):
                *others, last = await _resolved(url, may_be_private)
                for other in others:
                    with suppress(httpx.ConnectError):
                        return await self._call(url, other, headers, body)
                return await self._call(url, last, headers, body)
        except TimeoutError as error:
            raise NotDelivered(
                f"the webhook did not answer within {_WHOLE_SECONDS:.0f} seconds"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            why = str(error) or type(error).__name__
            raise NotDelivered(f"the webhook cannot be called: {why}") from error

    async def _call(
        self, url: httpx.URL, address: Address, headers: dict[str, str], body: bytes
    ) -> int:
        """The URL's host is named in the Host header and in TLS, where its certificate is checked
        against it.
        """
        async with httpx.AsyncClient(
            verify=self._tls, trust_env=False, follow_redirects=False, timeout=_EACH_SECONDS
        ) as client:
            request = client.build_request(
                "POST",
                url.copy_with(host=str(address)),
                headers={**headers, "Host": url.netloc.decode("ascii")},
                content=body,
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )
            response = await client.send(request, stream=True)
            await response.aclose()
            return response.status_code


async def _resolved(url: httpx.URL, may_be_private: bool) -> Sequence[Address]:
    """The addresses of the URL's host; NotDelivered when one of them may not be called."""
    port = url.port or (443 if url.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(entry[4][0])) for entry in found]
    except (OSError, ValueError) as error:
        raise NotDelivered(f"the webhook's host {url.host} has no address") from error
    for address in addresses:
        refusal = address_refusal(address, may_be_private=may_be_private)
        if refusal is not None:
            raise NotDelivered(
                f"the webhook's host is not called: {refusal}",
                hint="Webhooks lead to public addresses; the staff's may lead to others, too, with"
                " MANAGED_WEBHOOKS_TO_PRIVATE_ADDRESSES=true.",
            )
    return addresses
