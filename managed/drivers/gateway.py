"""The append-only way into the bucket: `rclone serve restic` and the accounts that it lets in.

`RcloneGateway` implements `managed.ports.Gateway` for any number of processes; the one that
supervises the embedded service also runs the server (`gateway_server`).

What append-only means here was read in rclone 1.75 and is tested: an object that exists is never
written again, nothing but locks can be deleted, and an account reaches its own folder only. Two
requests that write one name at the same moment are not told apart: whoever is root on a server can
spoil what it is just uploading, and nothing older than its slowest open request (an hour).
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from managed.domain.errors import Conflict, GatewayUnavailable, InvalidInput
from managed.domain.secrets import Secret
from managed.drivers.rclone import clean_environment, rclone_binary
from managed.drivers.s3 import S3Settings
from managed.drivers.server_process import ServerProcess

REPOSITORIES: Final = "repositories"
SHORTEST_PASSWORD: Final = 32
LONGEST_SOCKET_PATH: Final = 107
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


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


class RcloneGateway:
    """Accounts are lines of a htpasswd file that rclone reads again when it changes."""

    def __init__(self, accounts_file: Path, socket_path: Path) -> None:
        self._accounts_file = accounts_file
        self._socket = socket_path

    def admit(self, account: str, password: Secret) -> None:
        """InvalidInput for names that are no folder's and passwords below 32 characters."""
        self.admit_all({account: password})

    def admit_all(self, passwords: Mapping[str, Secret]) -> None:
        """The same for many accounts, in one change of the file."""
        lines = {account: account_line(account, one) for account, one in passwords.items()}
        with _changing(self._accounts_file) as accounts:
            accounts.update(lines)

    def dismiss(self, account: str) -> None:
        with _changing(self._accounts_file) as accounts:
            accounts.pop(account, None)

    def socket(self) -> str:
        if not answers_with_a_login(self._socket):
            raise GatewayUnavailable(
                "the backup gateway does not answer at its socket",
                hint="Start the embedded service, or look into the gateway's log.",
                socket=str(self._socket),
            )
        return str(self._socket)


def account_line(account: str, password: Secret) -> str:
    """A line of htpasswd with the password's SHA-1.

    The plain hash is enough, because passwords are random and too long to be guessed, and it has
    to be fast: restic logs in with every request, and bcrypt takes 49 ms each time.
    """
    if not _ACCOUNT.fullmatch(account):
        raise InvalidInput(f"{account!r} cannot be the name of a backup account", account=account)
    if len(password.reveal()) < SHORTEST_PASSWORD:
        raise InvalidInput(
            f"a gateway password has at least {SHORTEST_PASSWORD} characters", account=account
        )
    digest = hashlib.sha1(password.reveal().encode(), usedforsecurity=False).digest()
    return f"{account}:{{SHA}}{base64.b64encode(digest).decode()}"


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
    with _changing(settings.accounts_file):
        pass
    return ServerProcess(
        "the backup gateway",
        gateway_command(settings),
        clean_environment(gateway_environment(settings)),
        settings.log_file,
        lambda: _serves(settings),
        lambda: _make_way(settings),
    )


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


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, str]]:
    """The accounts' lines by name, for change under a lock; replaced in one step if changed."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(
        path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = path.read_text().splitlines() if path.exists() else []
        accounts = {line.partition(":")[0]: line for line in lines if line}
        before = dict(accounts)
        yield accounts
        if accounts != before or not path.exists():
            _replace(path, "".join(f"{line}\n" for line in accounts.values()))
    finally:
        os.close(lock)


def _replace(path: Path, content: str) -> None:
    """Write, sync, rename. The new time is later than the old one whatever the clock's tick is:
    rclone goes by it.
    """
    oldest = path.stat().st_mtime_ns + 1_000_000 if path.exists() else 0
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    moment = max(time.time_ns(), oldest)
    os.utime(new, ns=(moment, moment))
    new.rename(path)
