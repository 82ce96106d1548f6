"""The embedded S3 server: `rclone serve s3` over a local directory, on loopback.

For the demo, the tests and small installations; production sets the address of a real S3.
"""

from __future__ import annotations

import http.client
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from managed.domain.errors import InvalidInput
from managed.domain.secrets import Secret
from managed.drivers.rclone import clean_environment, rclone_binary
from managed.drivers.s3 import S3Settings
from managed.drivers.server_process import ServerProcess

SHORTEST_KEY: Final = 20
REGION: Final = "us-east-1"


@dataclass(frozen=True)
class S3ServerSettings:
    """Both keys have at least 20 characters (rclone refuses shorter ones) and no comma or quote."""

    directory: Path
    log_file: Path
    port: int
    access_key: Secret
    secret_key: Secret
    address: str = "127.0.0.1"

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.port}"

    def client_settings(self, bucket: str) -> S3Settings:
        return S3Settings(self.endpoint, REGION, bucket, self.access_key, self.secret_key)


def s3_server_command(settings: S3ServerSettings) -> tuple[str, ...]:
    """No key is in it: rclone reads them from its environment."""
    address = f"{settings.address}:{settings.port}"
    # Without --no-cleanup a bucket whose last object goes is removed itself.
    options = ("--addr", address, "--no-cleanup")
    return (str(rclone_binary()), "serve", "s3", *options, "--", str(settings.directory))


def s3_server_environment(settings: S3ServerSettings) -> dict[str, str]:
    """RCLONE_AUTH_KEY is a line of CSV whose one field holds "access key,secret key"."""
    for key in (settings.access_key.reveal(), settings.secret_key.reveal()):
        if len(key) < SHORTEST_KEY or not key.isascii() or set(key) & set(',"\n '):
            raise InvalidInput(
                f"the S3 server's keys need {SHORTEST_KEY} characters or more, without comma,"
                " quote or blank"
            )
    pair = f"{settings.access_key.reveal()},{settings.secret_key.reveal()}"
    return {"RCLONE_CONFIG": "/dev/null", "RCLONE_AUTH_KEY": f'"{pair}"'}


def s3_server(settings: S3ServerSettings) -> ServerProcess:
    """The server, not started. Its directory is made, for nobody else to read."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return ServerProcess(
        "the embedded S3 server",
        s3_server_command(settings),
        clean_environment(s3_server_environment(settings)),
        settings.log_file,
        lambda: _refuses_strangers(settings),
    )


def become_s3_server(settings: S3ServerSettings) -> NoReturn:
    """Have this process be the server."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = s3_server_command(settings)
    os.execve(command[0], command, clean_environment(s3_server_environment(settings)))  # noqa: S606


def _refuses_strangers(settings: S3ServerSettings) -> bool:
    """Does it answer, and with a refusal, to a request that carries no key?"""
    connection = http.client.HTTPConnection(settings.address, settings.port, timeout=2)
    try:
        connection.request("GET", "/")
        return 400 <= connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
