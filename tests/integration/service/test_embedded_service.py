"""The embedded service as its users have it: `managed serve` as a process, the command line beside
it, parts killed, everything ended.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from managed.cli import INTERRUPTED, run
from managed.domain.errors import GatewayUnavailable, ObjectStoreUnavailable
from managed.domain.jobs import JobKind
from managed.domain.secrets import new_password
from managed.drivers.gateway import RcloneGateway
from managed.drivers.processes import descendants, running_processes
from managed.drivers.s3 import S3ObjectStore
from managed.drivers.ssh.keys import new_key_pair
from managed.lab.demo_service import clean_up
from managed.lab.ports import free_port
from managed.settings import Settings, settings
from managed.wiring import open_installation, utc_now
from tests.support.embedded import argv_of, parts_of, with_embedded_storage
from tests.support.local_sshd import local_sshd
from tests.support.storage import Intruder
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_SECONDS = 120.0
PARTS = {
    "s3": b"serve s3",
    "gateway": b"serve restic",
    "api": b"-m api",
    "worker": b"-m celery",
    "clock": b"-m workers.schedule",
}


@dataclass
class Service:
    """A running `managed serve`, and `managed` run beside it."""

    settings: Settings
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    def managed(self, *arguments: str) -> tuple[int, str, str]:
        """One command, in this process; its exit status, output and errors."""
        out, error = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
            for name, value in self.environment.items():
                patch.setenv(name, value)
            settings.cache_clear()
            status = run(arguments)
        settings.cache_clear()
        return status, out.getvalue(), error.getvalue()

    def serve_again(self, **environment: str) -> tuple[int, str]:
        """Another `managed serve`, which is to end by itself; its exit status and errors."""
        done = subprocess.run(
            [sys.executable, "-m", "managed", "serve"],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return done.returncode, done.stderr

    def json(self, *arguments: str) -> Any:
        status, out, error = self.managed(*arguments, "--json")
        assert status == 0, error
        return json.loads(out)

    def part(self, word: bytes) -> int:
        """The one direct child of the service that has this word on its command line."""
        found = parts_of(self.process.pid, word)
        assert len(found) <= 1
        return found[0] if found else 0

    def is_healthy(self) -> bool:
        address = f"http://127.0.0.1:{self.settings.listen_port}/healthz"
        try:
            return httpx.get(address, timeout=5).is_success
        except httpx.HTTPError:
            return False

    def require_all_parts_serve(self) -> None:
        """Asks the parts themselves; a process that is there proves nothing."""
        for name, serves in {
            "s3": self._s3_lists,
            "gateway": self._gateway_lets_in,
            "api": self.is_healthy,
            "clock and worker": self._job_is_done,
        }.items():
            wait_until(serves, timeout=_SECONDS, what=f"the new {name} serves")

    def inside(self) -> Settings:
        """The settings of its parts. LookupError or ValueError while there is no S3 server."""
        return with_embedded_storage(self.settings, self.process.pid)

    def _s3_lists(self) -> bool:
        try:
            bucket = open_installation(self.inside()).bucket_settings
            return list(S3ObjectStore(bucket, timeout=5).keys("nothing/")) == []
        except (ObjectStoreUnavailable, LookupError, ValueError):
            return False

    def _gateway_lets_in(self) -> bool:
        gateway = RcloneGateway(self.settings.gateway_accounts, self.settings.gateway)
        password = new_password()
        try:
            gateway.admit("test", password)
            client = Intruder(
                Path(gateway.socket()), "test", password, password, self.settings.state
            )
            return client.request("GET", "/test/keys/")[0] == 200
        except GatewayUnavailable:
            return False

    def _job_is_done(self) -> bool:
        """A job of which nobody was told: only the clock sends it, only the worker does it. It
        fails, because nothing listens where the server is said to be.
        """
        installation = open_installation(self.settings)
        try:
            server = installation.inventory.by_name("nowhere")
            if server is None:
                self.json(
                    *("servers", "enrol", "nowhere", "127.0.0.1", "--port", str(free_port())),
                    *("--host-key", new_key_pair().public_key),
                )
                server = installation.inventory.by_name("nowhere")
            assert server is not None
            new = installation.new_job(server.server_id, JobKind.ENROL, {}, "a test")
            job = installation.queue.submit(new, utc_now())
            wait_until(
                lambda: installation.queue.job(job.job_id).status.is_final,
                timeout=_SECONDS,
                what="the job is done",
            )
        finally:
            installation.database.dispose()
        return True

    def says(self, text: str) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text())
        return text in self.log.read_text()


def start(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "managed", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    base = tmp_path_factory.mktemp("service")
    ours = Settings(state_dir=base / "state", listen_port=free_port())
    environment = {
        **ours.environment(),
        "MANAGED_LISTEN_PORT": str(ours.listen_port),
        "MANAGED_WORKER_PROCESSES": "2",
    }
    log = base / "serve.log"
    with ExitStack() as stack:
        stack.callback(clean_up, ours, print)
        service = Service(ours, environment, start(environment, log), log)
        wait_until(lambda: service.says("managed serves on"), timeout=_SECONDS, what="it serves")
        yield service


def test_it_tells_where_it_listens_and_where_the_token_is(service: Service) -> None:
    said = service.log.read_text()
    assert f"http://127.0.0.1:{service.settings.listen_port}" in said
    assert str(service.settings.api_token) in said
    assert service.settings.api_token.read_text().strip() not in said
    assert service.settings.api_token.stat().st_mode & 0o077 == 0
    assert service.is_healthy()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_that_is_told_to_stop_while_it_starts_stops_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    ours = Settings(state_dir=tmp_path / "state", listen_port=free_port())
    log = tmp_path / "serve.log"
    process = start(ours.environment(), log)
    try:
        wait_until(lambda: "s3 is up" in log.read_text(), timeout=_SECONDS, what="S3 is up")
        family = descendants(process.pid, running_processes())
        process.send_signal(number)
        assert process.wait(_SECONDS) == INTERRUPTED, log.read_text()
        assert "managed serves on" not in log.read_text()
        assert not set(family) & {found.pid for found in running_processes()}
    finally:
        process.kill()
        clean_up(ours, print)


def test_no_secret_is_on_a_command_line(service: Service) -> None:
    keys = json.loads((service.settings.keys / "s3.json").read_text())
    secrets = [*keys.values(), service.settings.api_token.read_text().strip()]
    family = descendants(service.process.pid, running_processes())
    lines = b"\n".join(b" ".join(argv_of(pid)) for pid in family).decode()
    assert len(family) >= len(PARTS)
    assert not [secret for secret in secrets if secret in lines]


def test_commands_ask_the_service(service: Service) -> None:
    assert service.json("servers", "list") == {"items": []}
    assert service.json("jobs", "list")["items"] == []
    status, _, error = service.managed("servers", "show", "nobody")
    assert status == 1
    assert "nobody" in error
    status, _, error = service.managed("servers", "create", "Bad_Name")
    assert status == 1
    assert "lower-case" in error


def test_a_worker_carries_out_what_the_command_line_asks_for(
    service: Service, tmp_path: Path
) -> None:
    """The key was not delivered, so the login is refused: the job fails, and says why."""
    with local_sshd(tmp_path) as endpoint:
        enrolled = service.json(
            *("servers", "enrol", "lost", endpoint.address, "--port", str(endpoint.port)),
            *("--host-key", endpoint.host_key),
        )
        assert enrolled["authorized_keys_line"].startswith("ssh-ed25519 ")
        status, out, _ = service.managed("jobs", "submit", "lost", "enrol", "--watch")
        assert status == 1
        assert "enrol failed" in out
        job = service.json("jobs", "list", "--server", "lost", "--kind", "enrol")["items"][0]
        assert job["error"]["code"] == "login-refused"
        status, out, _ = service.managed("jobs", "watch", job["id"], "--json")
        assert status == 1
        lines = [json.loads(line) for line in out.splitlines()]
        assert [line["seq"] for line in lines[:-1]] == list(range(1, len(lines)))
        assert lines[-1]["job"]["id"] == job["id"]
        for arguments in (("jobs", "list"), ("jobs", "show", job["id"]), ("servers", "list")):
            assert "lost" in service.managed(*arguments)[1]
    service.json("servers", "delete", "lost", "--yes")


def test_a_second_service_on_the_same_state_folder_is_refused(service: Service) -> None:
    status, error = service.serve_again()
    assert status == 1
    assert f"process {service.process.pid}" in error
    assert "Traceback" not in error


def test_a_used_port_is_one_clear_sentence(service: Service, tmp_path: Path) -> None:
    status, error = service.serve_again(MANAGED_STATE_DIR=str(tmp_path / "other"))
    assert status == 1
    assert f"port {service.settings.listen_port} on 127.0.0.1 is in use" in error
    assert "Traceback" not in error


def test_a_part_that_does_not_start_is_named_with_the_end_of_its_log(
    service: Service, tmp_path: Path
) -> None:
    try:
        status, error = service.serve_again(
            MANAGED_STATE_DIR=str(tmp_path),
            MANAGED_LISTEN_PORT=str(free_port()),
            MANAGED_BROKER_URL="nonsense://",
        )
    finally:
        clean_up(Settings(state_dir=tmp_path), lambda _text: None)
    assert status != 0
    assert "ended while starting" in error
    assert "No such transport: nonsense" in error


def test_a_killed_part_is_started_again_and_the_others_run_on(service: Service) -> None:
    before = {name: service.part(word) for name, word in PARTS.items()}
    os.kill(before["gateway"], signal.SIGKILL)
    wait_until(
        lambda: service.part(PARTS["gateway"]) not in (0, before["gateway"]),
        timeout=_SECONDS,
        what="new gateway",
    )
    after = {name: service.part(word) for name, word in PARTS.items()}
    assert {name for name in PARTS if after[name] != before[name]} == {"gateway"}


def test_killed_parts_are_started_again(service: Service) -> None:
    """All at once, so that none finds another one there that it may need."""
    before = {name: service.part(word) for name, word in PARTS.items()}
    assert all(before.values())
    below = {pid for part in before.values() for pid in descendants(part, running_processes())}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    for name, word in PARTS.items():
        old = before[name]
        wait_until(
            lambda word=word, old=old: service.part(word) not in (0, old),
            timeout=_SECONDS,
            what=f"new {name}",
        )
    wait_until(
        lambda: not {process.pid for process in running_processes()} & below,
        timeout=10,
        what="what the killed parts had started is gone",
    )
    service.require_all_parts_serve()
    wait_until(service.is_healthy, timeout=_SECONDS, what="the service is healthy again")


def test_the_new_worker_works(service: Service, tmp_path: Path) -> None:
    with local_sshd(tmp_path) as endpoint:
        address = ("servers", "enrol", "again", endpoint.address, "--port", str(endpoint.port))
        service.json(*address, "--host-key", new_key_pair().public_key)
        job = service.json("jobs", "submit", "again", "enrol")
        status, out, _ = service.managed("jobs", "watch", job["id"])
    assert status == 1
    assert "host key" in out, "the server shows another host key than the pinned one"


def test_stopped_it_leaves_no_process_behind(service: Service) -> None:
    family = descendants(service.process.pid, running_processes())
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(_SECONDS) == 0
    left = {process.pid: argv_of(process.pid) for process in running_processes()}
    assert not {pid: argv for pid, argv in left.items() if pid in family and _is_ours(argv)}
    status, _, error = service.managed("servers", "list")
    assert status == 3
    assert "does not answer" in error


def _is_ours(argv: list[bytes]) -> bool:
    """libvirt's daemon is meant to outlive the service: servers run on."""
    return not any(b"libvirt" in word or b"virtlogd" in word for word in argv)
