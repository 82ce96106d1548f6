"""The way to a gateway that listens with TLS, on another machine or in another container.

A server's restic still finds the gateway at the socket that is forwarded to it, and needs neither a
route to the gateway nor trust in its certificate: this process lends the forwarded connections one
of its own, by TLS, whose certificate it checks.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from managed.domain.errors import GatewayUnavailable, InvalidInput
from managed.drivers.gateway_accounts import GatewayAccounts
from managed.drivers.ssh.background import wait_for

log = structlog.get_logger()

_PIECE: Final = 256 * 1024
_CONNECT_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 3.0


@dataclass(frozen=True)
class GatewayAddress:
    """`ca_file` vouches for the gateway's certificate; None: the certificates of this system do."""

    host: str
    port: int
    ca_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise GatewayUnavailable(
                f"the certificates in {self.ca_file} cannot be read: {error}",
                hint="MANAGED_GATEWAY_CA_FILE names a PEM file that vouches for the gateway.",
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def gateway_address(url: str, ca_file: Path | None) -> GatewayAddress:
    """Of "https://host:port"; InvalidInput for anything else."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 443
    except ValueError:
        host, port = None, 0
    if parts.scheme != "https" or not host or parts.username or parts.path not in ("", "/"):
        raise InvalidInput(
            "MANAGED_GATEWAY_URL is no address of a gateway",
            hint="It looks like https://gateway.example.org:8443, without a login or a path.",
        )
    return GatewayAddress(host, port, ca_file)


class RemoteGateway(GatewayAccounts):
    """Implements `managed.ports.Gateway`. The socket is this process's own, in `directory`, and
    there as long as the process is.
    """

    def __init__(self, accounts_file: Path, address: GatewayAddress, directory: Path) -> None:
        super().__init__(accounts_file)
        self._address = address
        self._directory = directory
        self._relays: dict[int, asyncio.Server] = {}
        self._starting = threading.Lock()

    def socket(self) -> str:
        self.require_answer()
        path = self._directory / f"gateway-{os.getpid()}.sock"
        with self._starting:
            wait_for(self._listen(path))
        return str(path)

    def require_answer(self) -> None:
        """GatewayUnavailable unless a gateway with the right certificate asks for a login."""
        address = self._address
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=_ANSWER_SECONDS, context=address.context()
        )
        try:
            connection.request("GET", "/")
            status = connection.getresponse().status
        except ssl.SSLCertVerificationError as error:
            raise GatewayUnavailable(
                f"the gateway's certificate is not trusted: {error.verify_message}",
                hint="MANAGED_GATEWAY_CA_FILE names the certificate that vouches for it.",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise GatewayUnavailable(
                f"the backup gateway does not answer at {address.host}:{address.port}",
                hint="Is it up, and may this machine reach it? Look into the gateway's log.",
            ) from error
        finally:
            connection.close()
        if status != HTTPStatus.UNAUTHORIZED:
            raise GatewayUnavailable(
                f"what answers at {address.host}:{address.port} asks for no login",
                hint="MANAGED_GATEWAY_URL names the address of `managed gateway`.",
            )

    async def _listen(self, path: Path) -> None:
        """A forked child has its parent's relay on record, but not its loop: it makes its own."""
        if os.getpid() in self._relays:
            return
        relay = _Relay(self._address)
        previous = os.umask(0o077)
        try:
            server = await asyncio.start_unix_server(relay.serve, path)
        finally:
            os.umask(previous)
        self._relays[os.getpid()] = server


class _Relay:
    def __init__(self, address: GatewayAddress) -> None:
        self._address = address
        self._context = address.context()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the gateway and back. One that cannot be made is closed: restic
        tries again for a quarter of an hour.
        """
        try:
            far_reader, far_writer = await asyncio.wait_for(
                asyncio.open_connection(self._address.host, self._address.port, ssl=self._context),
                _CONNECT_SECONDS,
            )
        except (OSError, TimeoutError) as error:
            log.warning("gateway_not_reached", error=type(error).__name__, detail=str(error))
            writer.close()
            return
        both = [
            asyncio.create_task(_carry(reader, far_writer)),
            asyncio.create_task(_carry(far_reader, writer)),
        ]
        try:
            # HTTP closes when either side has had enough; TLS knows no half-closed connection.
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            for end in (writer, far_writer):
                end.close()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """As fast as the target takes it, until the source ends or one of the two breaks."""
    with suppress(OSError):
        while piece := await source.read(_PIECE):
            target.write(piece)
            await target.drain()
