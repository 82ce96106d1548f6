"""The append-only way into the bucket: `rclone serve restic` and the accounts that it lets in.

`RcloneGateway` implements `managed.ports.Gateway` for any number of processes where the gateway
listens at a socket (`gateway_tls.RemoteGateway`: where it listens with TLS); the one that
supervises the embedded service also runs the server (`gateway_server`).

What append-only means here was read in rclone 1.75 and is tested: an object that exists is never
written again, nothing but locks can be deleted, and an account reaches its own folder only. Two
requests that write one name at the same moment are not told apart: whoever is root on a server can
spoil what it is just uploading, and nothing older than its slowest open request (an hour).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from managed.domain.errors import Conflict, GatewayUnavailable, InvalidInput
from managed.drivers.gateway_accounts import GatewayAccounts
from managed.drivers.rclone import clean_environment, rclone_binary
from managed.drivers.s3 import S3Settings
from managed.drivers.server_process import ServerProcess

REPOSITORIES: Final = "repositories"
LONGEST_SOCKET_PATH: Final = 107


@dataclass(frozen=True)
class TlsListener:
    """Where production's gateway listens: "host:port", certificate chain and key as PEM files."""

    address: str
    certificate: Path
    key: Path


@dataclass(frozen=True)
class GatewaySettings:
    """`accounts_file` is a htpasswd file. With `tls` the gateway listens there and at no socket:
    rclone would speak TLS on every listener.
    """

    store: S3Settings
    socket: Path
    accounts_file: Path
    log_file: Path
    tls: TlsListener | None = None


class RcloneGateway(GatewayAccounts):
    """Implements `managed.ports.Gateway` for a gateway at a socket of this machine."""

    def __init__(self, accounts_file: Path, socket_path: Path) -> None:
        super().__init__(accounts_file)
        self._socket = socket_path

    def socket(self) -> str:
        self.require_answer()
        return str(self._socket)

    def require_answer(self) -> None:
        """GatewayUnavailable when it is down."""
        if not answers_with_a_login(self._socket):
            raise GatewayUnavailable(
                "the backup gateway does not answer at its socket",
                hint="Start the embedded service, or look into the gateway's log.",
                socket=str(self._socket),
            )


def gateway_command(settings: GatewaySettings) -> tuple[str, ...]:
    """No secret is in it. Objects are not cached: our own jobs move and prune behind its back."""
    if settings.tls is None:
        listener: tuple[str, ...] = ("--addr", f"unix://{settings.socket}")
    else:
        listener = (
            *("--addr", settings.tls.address),
            *("--cert", str(settings.tls.certificate), "--key", str(settings.tls.key)),
            *("--min-tls-version", "tls1.2"),
        )
    return (
        *(str(rclone_binary()), "serve", "restic"),
        *("--append-only", "--private-repos", "--cache-objects=false"),
        *("--htpasswd", str(settings.accounts_file)),
        *listener,
        f"store:{settings.store.bucket}/{REPOSITORIES}",
    )


def gateway_environment(settings: GatewaySettings) -> dict[str, str]:
    """The remote "store", keys included, for the server's process alone."""
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": settings.store.endpoint,
        "REGION": settings.store.region,
        "ACCESS_KEY_ID": settings.store.access_key.reveal(),
        "SECRET_ACCESS_KEY": settings.store.secret_key.reveal(),
        "FORCE_PATH_STYLE": "true",
        "NO_CHECK_BUCKET": "true",
    }
    return {
        "RCLONE_CONFIG": "/dev/null",
        **{f"RCLONE_CONFIG_STORE_{name}": value for name, value in remote.items()},
    }


def gateway_server(settings: GatewaySettings) -> ServerProcess:
    """The gateway's process, not started; the S3 server has to answer first.

    The accounts file is made if missing. Each start removes the socket that a killed gateway left
    (rclone would not listen there), and raises Conflict when another gateway answers at it.
    """
    if len(os.fsencode(settings.socket)) > LONGEST_SOCKET_PATH:
        raise InvalidInput(f"the path of the gateway's socket is too long: {settings.socket}")
    GatewayAccounts(settings.accounts_file).make_file()
    return ServerProcess(
        "the backup gateway",
        gateway_command(settings),
        clean_environment(gateway_environment(settings)),
        settings.log_file,
        lambda: _serves(settings),
        lambda: _make_way(settings),
    )


def become_gateway(settings: GatewaySettings) -> NoReturn:
    """Have this process be the gateway: whoever supervises it gets its signals and its status."""
    GatewayAccounts(settings.accounts_file).make_file()
    _make_way(settings)
    command = gateway_command(settings)
    environment = clean_environment(gateway_environment(settings))
    os.execve(command[0], command, environment)  # noqa: S606


def _make_way(settings: GatewaySettings) -> None:
    if settings.tls is not None:
        return
    settings.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if answers_with_a_login(settings.socket):
        raise Conflict("another gateway answers at this socket", socket=str(settings.socket))
    settings.socket.unlink(missing_ok=True)


def _serves(settings: GatewaySettings) -> bool:
    if settings.tls is None:
        return answers_with_a_login(settings.socket)
    host, _, port = settings.tls.address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]") or "localhost", int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def answers_with_a_login(path: Path) -> bool:
    """Does a gateway listen here that asks strangers for a password?"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, suppress(OSError):
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.recv(64).split(b"\r\n")[0].split(b" ")[1:2] == [b"401"]
    return False
