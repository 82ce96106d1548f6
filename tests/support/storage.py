"""A real S3 server and gateway on loopback for tests, and restic as root on a server runs it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from images.build import build_images
from images.store import ImageName
from managed.domain.errors import Json
from managed.domain.secrets import Secret, new_password
from managed.domain.snapshots import RepositoryAddress
from managed.drivers.gateway import GatewaySettings, RcloneGateway, gateway_server
from managed.drivers.rclone import clean_environment
from managed.drivers.restic.commands import REPOSITORIES, ResticSettings
from managed.drivers.restic.crypto import Key, opened_key_file
from managed.drivers.restic.repositories import ResticRepositories
from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.lab.ports import free_port
from managed.lab.s3_server import S3ServerSettings, s3_server
from managed.ports import Clock
from tests.support.restic_objects import key_file, with_new_id
from tests.support.runtime import short_directory

BUCKET = "managed-tests"
_LOOPBACK = x509.IPAddress(IPv4Address("127.0.0.1"))
IMAGES = Path(__file__).parents[2] / "var" / "images"


@cache
def restic_binary() -> Path:
    """The restic of MANAGED_RESTIC or of var/images, which is built if it is missing."""
    if named := os.environ.get("MANAGED_RESTIC"):
        return Path(named)
    build_images([ImageName.RESTIC], IMAGES, lambda _line: None, force=False)
    return IMAGES / "restic" / "restic"


def self_signed_certificate(
    directory: Path, host: x509.GeneralName = _LOOPBACK
) -> tuple[Path, Path]:
    """A certificate for the host that vouches for itself, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server of the tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "certificate-key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@dataclass(frozen=True)
class Storage:
    """A running S3 server with an empty bucket, and a gateway in front of it."""

    directory: Path
    settings: S3Settings
    objects: S3ObjectStore
    gateway: RcloneGateway
    gateway_settings: GatewaySettings

    @property
    def restic_settings(self) -> ResticSettings:
        cache_directory = self.directory / "cache"
        return ResticSettings(restic_binary(), cache_directory, self.settings, lock_patience=1)

    def restic(self, clock: Clock = lambda: datetime.now(UTC)) -> ResticRepositories:
        return ResticRepositories(self.restic_settings, self.objects, clock)

    def new_repository(self, account: str) -> RepositoryAddress:
        """A copy of an empty repository that the driver made, with an id, a password and a key
        file of its own. The key file is cheap to open: with those that restic makes, every command
        spends half a second on it.
        """
        master, config = self._template
        password, root = new_password(), f"{REPOSITORIES}/{account}"
        key = key_file(master, password.reveal())
        key_id = hashlib.sha256(key).hexdigest()
        self.objects.put(f"{root}/keys/{key_id}", key)
        self.objects.put(f"{root}/config", with_new_id(master, config))
        return RepositoryAddress(account, password, key_id)

    @cached_property
    def _template(self) -> tuple[Key, bytes]:
        """The master key and the configuration, which are all that a new repository holds."""
        made = RepositoryAddress("srv-template", new_password())
        root, key_id = f"{REPOSITORIES}/{made.account}", self.restic().create(made)
        config, key = f"{root}/config", f"{root}/keys/{key_id}"
        assert self.objects.keys(f"{root}/") == [config, key]
        master = opened_key_file(self.objects.get(key), made.password)
        return master, self.objects.get(config)

    def intruder(self, repository: RepositoryAddress) -> Intruder:
        """Root on the server whose repository this is, let in at the gateway."""
        password = new_password()
        self.gateway.admit(repository.account, password)
        socket_path = self.gateway_settings.socket
        return Intruder(
            socket_path, repository.account, password, repository.password, self.directory
        )


@contextmanager
def s3_bucket(directory: Path) -> Iterator[S3Settings]:
    server_settings = S3ServerSettings(
        directory=directory / "s3",
        log_file=directory / "s3.log",
        port=free_port(),
        access_key=new_password(),
        secret_key=new_password(),
    )
    server = s3_server(server_settings)
    server.start()
    try:
        server.wait()
        settings = server_settings.client_settings(BUCKET)
        S3ObjectStore(settings).ensure_bucket()
        yield settings
    finally:
        server.stop()


@contextmanager
def storage() -> Iterator[Storage]:
    with short_directory() as directory, s3_bucket(directory) as settings:
        gateway_settings = GatewaySettings(
            store=settings,
            socket=directory / "run" / "gateway.sock",
            accounts_file=directory / "keys" / "htpasswd",
            log_file=directory / "gateway.log",
        )
        server = gateway_server(gateway_settings)
        server.start()
        try:
            server.wait()
            yield Storage(
                directory,
                settings,
                S3ObjectStore(settings),
                RcloneGateway(gateway_settings.accounts_file, gateway_settings.socket),
                gateway_settings,
            )
        finally:
            server.stop()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Intruder:
    """Root on a server: knows everything that reaches the server, and only that."""

    socket: Path
    account: str
    gateway_password: Secret
    repository_password: Secret
    directory: Path

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Speak to the gateway past restic; returns status and body."""
        login = b64encode(f"{self.account}:{self.gateway_password.reveal()}".encode()).decode()
        headers = {
            "Authorization": f"Basic {login}",
            "Accept": "application/vnd.x.restic.rest.v2",
        }
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def restic(
        self, *arguments: str, repository: str = "", timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run restic through the gateway; a status other than 0 is a result."""
        return subprocess.run(
            [str(restic_binary()), *arguments],
            env=self._environment(repository or self.account),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start restic; it reads what is written to its standard input."""
        return subprocess.Popen(
            [str(restic_binary()), *arguments],
            env=self._environment(self.account),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def backup(self, paths: Sequence[Path], *, key_id: str = "") -> str:
        """Back up; returns the snapshot's id."""
        hint = ("--key-hint", key_id) if key_id else ()
        done = self.restic("backup", "--json", *hint, "--host", self.account, *map(str, paths))
        assert done.returncode == 0, done.stderr
        summary: dict[str, Json] = json.loads(done.stdout.splitlines()[-1])
        return str(summary["snapshot_id"])

    def _environment(self, repository: str) -> dict[str, str]:
        return clean_environment(
            {
                "RESTIC_REPOSITORY": f"rest:http+unix://{self.socket}:/{repository}/",
                "RESTIC_REST_USERNAME": self.account,
                "RESTIC_REST_PASSWORD": self.gateway_password.reveal(),
                "RESTIC_PASSWORD": self.repository_password.reveal(),
                "RESTIC_CACHE_DIR": str(self.directory / "server-cache"),
            }
        )
