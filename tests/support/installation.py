"""A whole installation as production has it: PostgreSQL, Redis, S3, gateway, API, worker, clock,
all real processes on loopback. What dies is started again, as a service manager would do it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import httpx
from pydantic import SecretStr

from managed.domain.errors import ManagedError
from managed.domain.secrets import new_password
from managed.drivers.gateway import GatewaySettings, gateway_server
from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.drivers.server_process import ServerProcess
from managed.lab.ports import free_port
from managed.lab.s3_server import S3ServerSettings, s3_server
from managed.settings import Settings
from managed.wiring import open_installation, prepare_installation
from tests.support.postgres import PostgresCluster, postgres_cluster
from tests.support.runtime import short_directory
from tests.support.storage import restic_binary

_REPOSITORY = Path(__file__).parents[2]
_START_SECONDS = 120.0


class Part(StrEnum):
    """In the order of starting."""

    BROKER = "broker"
    S3 = "s3"
    GATEWAY = "gateway"
    API = "api"
    WORKER = "worker"
    CLOCK = "clock"


@dataclass
class LiveInstallation:
    """A running installation. `settings` are those of its processes."""

    settings: Settings
    cluster: PostgresCluster
    parts: dict[Part, ServerProcess]
    restarts: list[Part] = field(default_factory=list)

    def client(self, timeout: float = 20) -> httpx.Client:
        """Speaks to the API as staff do."""
        token = self.settings.api_token.read_text().strip()
        return httpx.Client(
            base_url=api_url(self.settings),
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout,
        )


def api_url(settings: Settings) -> str:
    return f"http://{settings.listen_address}:{settings.listen_port}"


@contextmanager
def live_installation(
    wanted: tuple[Part, ...] = tuple(Part),
    postgres_options: str = "-c max_connections=100",
    worker_app: str = "workers.app",
    **options: object,
) -> Iterator[LiveInstallation]:
    """These parts, all of them serving; `options` are settings. Nothing stays when it is left."""
    with ExitStack() as stack:
        cluster = stack.enter_context(postgres_cluster(postgres_options))
        directory = stack.enter_context(short_directory())
        settings = _settings(directory, cluster, options)
        prepare_installation(settings)
        parts = {
            part: process for part, process in _processes(settings, worker_app) if part in wanted
        }
        installation = LiveInstallation(settings, cluster, parts)
        stack.enter_context(_supervised(installation))
        yield installation


def _settings(directory: Path, cluster: PostgresCluster, options: dict[str, object]) -> Settings:
    given: dict[str, object] = {
        "state_dir": directory / "state",
        "runtime_dir": directory / "run",
        "database_url": cluster.url,
        "broker_url": f"redis://127.0.0.1:{free_port()}/0",
        "listen_port": free_port(),
        "s3_endpoint": f"http://127.0.0.1:{free_port()}",
        "s3_access_key": new_password().reveal(),
        "s3_secret_key": SecretStr(new_password().reveal()),
        "restic": restic_binary(),
    }
    return Settings(**{**given, **options})  # type: ignore[arg-type]


def _processes(settings: Settings, worker_app: str) -> Iterator[tuple[Part, ServerProcess]]:
    store = open_installation(settings).bucket_settings
    gateway = GatewaySettings(
        store, settings.gateway, settings.gateway_accounts, _log(settings, Part.GATEWAY)
    )
    yield Part.BROKER, _redis(settings)
    yield Part.S3, _s3(settings, store)
    yield Part.GATEWAY, gateway_server(gateway)
    yield Part.API, _python(settings, Part.API, "-m", "api")
    worker = ("-m", "celery", "-A", worker_app, "worker", "--loglevel", "warning")
    yield Part.WORKER, _python(settings, Part.WORKER, *worker)
    yield Part.CLOCK, _python(settings, Part.CLOCK, "-m", "workers.schedule")


def _python(settings: Settings, part: Part, *arguments: str) -> ServerProcess:
    environment = settings.environment() | {"PYTHONPATH": str(_REPOSITORY)}
    mark = settings.runtime / f"{part}-ready"
    answers = (lambda: _api_answers(settings)) if part is Part.API else mark.exists
    command = (sys.executable, *arguments)
    return ServerProcess(f"the {part}", command, environment, _log(settings, part), answers)


def _redis(settings: Settings) -> ServerProcess:
    """Keeps nothing on disk: a killed one comes back empty."""
    port = int(settings.broker_url.rpartition(":")[2].partition("/")[0])
    command = (
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port)),
        *("--save", "", "--appendonly", "no", "--dir", str(settings.state)),
    )
    environment = {"PATH": os.environ["PATH"]}
    log = _log(settings, Part.BROKER)
    return ServerProcess("the broker", command, environment, log, lambda: _pongs(port))


def _s3(settings: Settings, store: S3Settings) -> ServerProcess:
    server = S3ServerSettings(
        directory=settings.state / "s3",
        log_file=_log(settings, Part.S3),
        port=int(store.endpoint.rpartition(":")[2]),
        access_key=store.access_key,
        secret_key=store.secret_key,
    )
    return s3_server(server)


@contextmanager
def _supervised(installation: LiveInstallation) -> Iterator[None]:
    """All from one thread that stays: a ServerProcess dies with the thread that started it."""
    stop, is_up, errors = threading.Event(), threading.Event(), list[BaseException]()

    def supervise() -> None:
        try:
            _start_all(installation)
            is_up.set()
            while not stop.wait(1.0):
                _restart_dead(installation)
        except BaseException as error:
            errors.append(error)
        finally:
            is_up.set()
            for process in reversed(installation.parts.values()):
                process.stop()

    thread = threading.Thread(target=supervise, name="supervisor")
    thread.start()
    try:
        is_up.wait()
        if errors:
            raise errors[0]
        yield
    finally:
        stop.set()
        thread.join()


def _start_all(installation: LiveInstallation) -> None:
    for part, process in installation.parts.items():
        process.start()
        process.wait(_START_SECONDS)
        if part is Part.S3:
            S3ObjectStore(open_installation(installation.settings).bucket_settings).ensure_bucket()


def _restart_dead(installation: LiveInstallation) -> None:
    for part, process in installation.parts.items():
        if not process.is_running:
            installation.restarts.append(part)
            try:
                process.start()
            except (ManagedError, OSError):
                continue


def _log(settings: Settings, part: Part) -> Path:
    return settings.state / "log" / f"{part}.log"


def _api_answers(settings: Settings) -> bool:
    try:
        return httpx.get(f"{api_url(settings)}/healthz", timeout=2).is_success
    except httpx.HTTPError:
        return False


def _pongs(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as redis:
        redis.sendall(b"PING\r\n")
        return redis.recv(16).startswith(b"+PONG")
    return False
