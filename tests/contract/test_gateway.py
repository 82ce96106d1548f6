"""What every Gateway keeps, the fake and the real one (rclone in front of a real S3 server)."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from managed.domain.errors import Conflict, GatewayUnavailable, InvalidInput
from managed.domain.secrets import Secret, new_password
from managed.drivers.fakes.gateway import FakeGateway
from managed.drivers.gateway import (
    GatewaySettings,
    RcloneGateway,
    TlsListener,
    gateway_command,
    gateway_environment,
    gateway_server,
)
from managed.drivers.gateway_tls import RemoteGateway, gateway_address
from managed.ports import Gateway
from tests.support.storage import Intruder, Storage, free_port, self_signed_certificate, storage
from tests.support.waiting import wait_until

REAL = ("socket", "tls")


@dataclass
class Bench:
    """A port and a way to find out whom it lets in."""

    port: Gateway
    lets_in: Callable[[str, Secret], bool]


@pytest.fixture(scope="module")
def place() -> Iterator[Storage]:
    with storage() as running:
        yield running


def _lets_in(place: Storage, gateway: Gateway, account: str, password: Secret) -> bool:
    client = Intruder(Path(gateway.socket()), account, password, password, place.directory)
    status, _ = client.request("GET", f"/{account}/keys/")
    assert status in (200, 401)
    return status == 200


@dataclass(frozen=True)
class Remote:
    """A gateway that listens with TLS, and the way to it."""

    gateway: RemoteGateway
    settings: GatewaySettings
    certificate: Path


@pytest.fixture(scope="module")
def remote(place: Storage) -> Iterator[Remote]:
    certificate, key = self_signed_certificate(place.directory)
    port = free_port()
    settings = replace(
        place.gateway_settings,
        socket=place.directory / "run" / "unused.sock",
        tls=TlsListener(f"127.0.0.1:{port}", certificate, key),
    )
    server = gateway_server(settings)
    server.start()
    try:
        server.wait()
        address = gateway_address(f"https://127.0.0.1:{port}", certificate)
        directory = place.directory / "run"
        gateway = RemoteGateway(settings.accounts_file, address, directory)
        yield Remote(gateway, settings, certificate)
    finally:
        server.stop()


@pytest.fixture(params=["fake", *(pytest.param(p, marks=pytest.mark.integration) for p in REAL)])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        fake = FakeGateway()
        return Bench(fake, fake.lets_in)
    place: Storage = request.getfixturevalue("place")
    if request.param == "socket":
        gateway: Gateway = place.gateway
    else:
        gateway = request.getfixturevalue("remote").gateway
    return Bench(gateway, lambda account, password: _lets_in(place, gateway, account, password))


def test_an_account_is_let_in_at_once_and_with_its_password_only(bench: Bench) -> None:
    password = new_password()
    assert not bench.lets_in("srv-a", password)
    bench.port.admit("srv-a", password)
    assert bench.lets_in("srv-a", password)
    assert not bench.lets_in("srv-a", new_password())


def test_a_new_password_replaces_the_old_one(bench: Bench) -> None:
    passwords = [new_password() for _ in range(5)]
    for password in passwords:
        bench.port.admit("srv-b", password)
        assert [bench.lets_in("srv-b", known) for known in passwords] == [
            known == password for known in passwords
        ]


def test_dismissed_is_let_in_no_more_and_others_are(bench: Bench) -> None:
    mine, other = new_password(), new_password()
    bench.port.admit("srv-c", mine)
    bench.port.admit("srv-d", other)
    bench.port.dismiss("srv-c")
    bench.port.dismiss("srv-c")
    assert not bench.lets_in("srv-c", mine)
    assert bench.lets_in("srv-d", other)


@pytest.mark.parametrize("account", ["", "..", "a/b", "a:b", "a\nb", "ü", "-x"])
def test_names_that_are_no_folders_are_refused(bench: Bench, account: str) -> None:
    with pytest.raises(InvalidInput):
        bench.port.admit(account, new_password())


def test_a_guessable_password_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidInput) as caught:
        bench.port.admit("srv-e", Secret("short"))
    assert "short" not in str(caught.value.as_json())


@pytest.mark.integration
def test_the_socket_is_named_while_the_gateway_answers(place: Storage) -> None:
    assert place.gateway.socket() == str(place.gateway_settings.socket)
    elsewhere = RcloneGateway(place.gateway_settings.accounts_file, place.directory / "none.sock")
    with pytest.raises(GatewayUnavailable):
        elsewhere.socket()


def test_the_fake_can_be_down() -> None:
    with pytest.raises(GatewayUnavailable):
        FakeGateway(is_up=False).socket()


@pytest.mark.integration
def test_a_second_gateway_does_not_take_the_socket(place: Storage) -> None:
    with pytest.raises(Conflict):
        gateway_server(place.gateway_settings).start()
    assert place.gateway.socket()


@pytest.mark.integration
def test_a_dead_gateways_socket_is_taken_over(place: Storage) -> None:
    settings = replace(place.gateway_settings, socket=place.directory / "run" / "second.sock")
    for _ in range(2):
        server = gateway_server(settings)
        server.start()
        server.wait()
        assert RcloneGateway(settings.accounts_file, settings.socket).socket()
        assert server.pid is not None
        server.stop()
        with socket.socket(socket.AF_UNIX) as left_by_a_killed_gateway:
            left_by_a_killed_gateway.bind(str(settings.socket))
        assert settings.socket.exists()


@pytest.mark.integration
def test_a_killed_gateway_answers_again_when_it_is_started_again(place: Storage) -> None:
    settings = replace(place.gateway_settings, socket=place.directory / "run" / "killed.sock")
    server = gateway_server(settings)
    try:
        for _ in range(3):
            server.start()
            server.wait()
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: not server.is_running, timeout=10, what="it is dead")
            assert settings.socket.exists()
    finally:
        server.stop()


@pytest.mark.integration
def test_accounts_of_several_processes_are_all_kept(place: Storage) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from managed.domain.secrets import new_password\n"
        "from managed.drivers.gateway import RcloneGateway\n"
        "gateway = RcloneGateway(Path(sys.argv[1]), Path('none'))\n"
        "for number in range(20):\n"
        "    gateway.admit(f'many-{sys.argv[2]}-{number}', new_password())\n"
    )
    accounts = place.directory / "keys" / "shared"
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(accounts), str(writer)])
        for writer in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    names = {line.partition(":")[0] for line in accounts.read_text().splitlines()}
    assert names == {f"many-{writer}-{number}" for writer in range(4) for number in range(20)}
    assert accounts.stat().st_mode & 0o777 == 0o600


@pytest.mark.integration
def test_no_secret_is_in_the_gateways_command_or_log(place: Storage) -> None:
    settings = place.gateway_settings
    secrets = [settings.store.access_key.reveal(), settings.store.secret_key.reveal()]
    command = " ".join(gateway_command(settings))
    log = settings.log_file.read_text() + (place.directory / "s3.log").read_text()
    environment = gateway_environment(settings)
    assert environment["RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY"] == secrets[1]
    assert not [secret for secret in secrets if secret in command or secret in log]


@pytest.mark.integration
def test_with_tls_it_asks_for_a_login_and_listens_at_no_socket(remote: Remote) -> None:
    assert remote.settings.tls is not None
    host, _, port = remote.settings.tls.address.partition(":")
    context = ssl.create_default_context(cafile=str(remote.certificate))
    connection = http.client.HTTPSConnection(host, int(port), context=context)
    connection.request("GET", "/srv-a/keys/")
    assert connection.getresponse().status == http.HTTPStatus.UNAUTHORIZED
    connection.close()
    assert not remote.settings.socket.exists()


@pytest.mark.integration
def test_a_backup_goes_through_the_socket_that_leads_to_tls_and_comes_back(
    place: Storage, remote: Remote, tmp_path: Path
) -> None:
    repository = place.new_repository("srv-tls")
    password = new_password()
    remote.gateway.admit(repository.account, password)
    content = os.urandom(20_000_000)
    (tmp_path / "file").write_bytes(content)
    client = Intruder(
        Path(remote.gateway.socket()),
        repository.account,
        password,
        repository.password,
        place.directory,
    )
    snapshot = client.backup([tmp_path / "file"])
    restored = client.restic("restore", snapshot, "--target", str(tmp_path / "restored"))
    assert restored.returncode == 0, restored.stderr
    found = tmp_path / "restored" / (tmp_path / "file").relative_to("/")
    assert found.read_bytes() == content
    assert (Path(remote.gateway.socket()).stat().st_mode & 0o077) == 0


@pytest.mark.integration
def test_a_gateway_whose_certificate_nobody_vouches_for_is_not_used(remote: Remote) -> None:
    assert remote.settings.tls is not None
    address = gateway_address(f"https://{remote.settings.tls.address}", None)
    stranger = RemoteGateway(remote.settings.accounts_file, address, remote.certificate.parent)
    with pytest.raises(GatewayUnavailable, match="not trusted"):
        stranger.socket()


@pytest.mark.integration
def test_a_gateway_that_is_away_is_said_to_be(remote: Remote) -> None:
    address = gateway_address(f"https://127.0.0.1:{free_port()}", remote.certificate)
    away = RemoteGateway(remote.settings.accounts_file, address, remote.certificate.parent)
    with pytest.raises(GatewayUnavailable, match="does not answer"):
        away.socket()


@pytest.mark.parametrize(
    "url",
    ["", "http://gateway", "https://", "https://user@gateway", "https://gateway/x", "https://g:x"],
)
def test_odd_addresses_of_a_gateway_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="MANAGED_GATEWAY_URL"):
        gateway_address(url, None)
