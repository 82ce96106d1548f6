"""The embedded service: S3, gateway, API, worker and clock as children of one process.

A child that dies is started again; when this process dies, the kernel ends the children.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from managed.domain.errors import Conflict, ManagedError, MissingRequirement, Unavailable
from managed.domain.secrets import Secret
from managed.drivers.gateway import GatewaySettings, gateway_server
from managed.drivers.local_ports import port_is_free
from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.drivers.server_process import ServerProcess
from managed.lab.apt_cache import apt_cache_server, guest_proxy_url
from managed.lab.local_node import register_local_node
from managed.lab.locks import only_holder
from managed.lab.ports import free_port, kept_port
from managed.lab.s3_server import S3ServerSettings, s3_server
from managed.settings import Settings
from managed.wiring import open_installation, prepare_installation

Say = Callable[[str], None]

_START_SECONDS: Final = 180.0
_WORKER_STOP_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_LONGEST_PAUSE: Final = 30.0
# A part that has run this long has come up well: what went wrong before is forgotten.
_WELL_SECONDS: Final = 120.0


@dataclass
class Part:
    """One child, and how often in a row it had to be started again soon after it was started."""

    name: str
    process: ServerProcess
    stop_seconds: float = _STOP_SECONDS
    failures: int = 0
    started: float = field(default_factory=time.monotonic)
    next_start: float = 0.0

    def count_failure(self, now: float) -> None:
        """It has ended: when it may be started again, later each time unless it had run well."""
        self.failures = self.failures + 1 if now - self.started < _WELL_SECONDS else 1
        self.next_start = now + min(2.0**self.failures, _LONGEST_PAUSE)
        self.started = now


@dataclass
class EmbeddedService:
    """Everything of the service on this machine. Not for use by several threads. `stopped` is set
    by whoever wants it to stop.
    """

    settings: Settings
    say: Say
    stopped: threading.Event = field(default_factory=threading.Event)
    parts: list[Part] = field(default_factory=list, init=False)
    _apt_proxy: str = field(default="", init=False)

    def start(self) -> None:
        """Start every part in order and wait until each serves.

        Conflict when another service uses the state folder or the port; a part that does not
        start raises Unavailable with the end of its log, and told to stop meanwhile it raises
        KeyboardInterrupt; nothing stays running then.
        """
        prepare_installation(self.settings)
        self._refuse_used_port()
        keys = embedded_s3_keys(self.settings)
        try:
            self._start_storage(keys)
            self._start_apt_cache()
            self._register_node()
            self._start_python_parts(self._environment(keys))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the parts, last started first. Jobs are given back; servers run on."""
        for part in reversed(self.parts):
            part.process.stop(part.stop_seconds)
        self.parts.clear()

    def keep_running(self) -> None:
        """Start again what dies, with growing pauses, until told to stop."""
        while not self.stopped.wait(0.5):
            for part in self.parts:
                if not part.process.is_running and time.monotonic() >= part.next_start:
                    self._start_again(part)

    def _start_again(self, part: Part) -> None:
        part.count_failure(time.monotonic())
        self.say(f"{part.name} ended; starting it again")
        try:
            part.process.start()
        except (ManagedError, OSError) as error:
            self.say(f"{part.name} cannot be started: {error}")

    def _start_storage(self, keys: S3Settings | None) -> None:
        if keys is None:
            store = open_installation(self.settings).bucket_settings
        else:
            store = keys
            server = S3ServerSettings(
                directory=self.settings.state / "s3",
                log_file=self._log("s3"),
                port=int(keys.endpoint.rpartition(":")[2]),
                access_key=keys.access_key,
                secret_key=keys.secret_key,
            )
            self._add("s3", s3_server(server))
        S3ObjectStore(store).ensure_bucket()
        gateway = GatewaySettings(
            store, self.settings.gateway, self.settings.gateway_accounts, self._log("gateway")
        )
        self._add("gateway", gateway_server(gateway))

    def _start_apt_cache(self) -> None:
        """Guests fetch packages through a cache on loopback, where one is installed. Its port is
        the same each time, because the servers made before have it in their apt's settings.
        """
        port = kept_port(self.settings.state / "apt-cache" / "port")
        try:
            self._add("apt-cache", apt_cache_server(self.settings.state, port, self._log("apt")))
        except (MissingRequirement, Unavailable) as error:
            self._drop("apt-cache")
            self.say(f"no package cache, servers fetch directly: {error.message}")
            return
        self._apt_proxy = guest_proxy_url(port)

    def _register_node(self) -> None:
        try:
            node = register_local_node(open_installation(self.settings))
            self.say(f"node {node.name}: {node.libvirt_uri}")
        except ManagedError as error:
            self.say(f"no local node, servers can only be enrolled: {error.message}")

    def _start_python_parts(self, environment: Mapping[str, str]) -> None:
        worker = ("-m", "celery", "-A", "workers.app", "worker", "--loglevel", "warning")
        for name, command, stop_seconds, answers in (
            ("api", ("-m", "api"), _STOP_SECONDS, self._api_answers),
            ("worker", worker, _WORKER_STOP_SECONDS, self._is_ready("worker")),
            ("clock", ("-m", "workers.schedule"), _STOP_SECONDS, self._is_ready("clock")),
        ):
            process = ServerProcess(
                f"the {name}", (sys.executable, *command), environment, self._log(name), answers
            )
            self._add(name, process, stop_seconds)

    def _add(self, name: str, process: ServerProcess, stop_seconds: float = _STOP_SECONDS) -> None:
        process.start()
        self.parts.append(Part(name, process, stop_seconds))
        process.wait(_START_SECONDS)
        self.say(f"{name} is up")
        if self.stopped.is_set():
            # Python drops what a signal's handler raises where it happens to run in a destructor.
            raise KeyboardInterrupt

    def _drop(self, name: str) -> None:
        """End a part that is not needed."""
        for part in self.parts:
            if part.name == name:
                part.process.stop(part.stop_seconds)
        self.parts = [part for part in self.parts if part.name != name]

    def _environment(self, keys: S3Settings | None) -> dict[str, str]:
        environment = self.settings.environment()
        if keys is not None:
            environment |= {
                "MANAGED_S3_ENDPOINT": keys.endpoint,
                "MANAGED_S3_REGION": keys.region,
                "MANAGED_S3_ACCESS_KEY": keys.access_key.reveal(),
                "MANAGED_S3_SECRET_KEY": keys.secret_key.reveal(),
            }
        if self._apt_proxy:
            environment["MANAGED_LAB_APT_PROXY"] = self._apt_proxy
        return environment

    def _api_answers(self) -> bool:
        try:
            return httpx.get(f"{service_url(self.settings)}/healthz", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def _is_ready(self, name: str) -> Callable[[], bool]:
        mark = self.settings.runtime / f"{name}-ready"
        mark.unlink(missing_ok=True)
        return mark.exists

    def _log(self, name: str) -> Path:
        return self.settings.state / "log" / f"{name}.log"

    def _refuse_used_port(self) -> None:
        address, port = self.settings.listen_address, self.settings.listen_port
        if not port_is_free(port, address):
            raise Conflict(
                f"port {port} on {address} is in use",
                hint="Stop what listens there, or set MANAGED_LISTEN_PORT.",
            )


def service_url(settings: Settings) -> str:
    return f"http://{settings.listen_address}:{settings.listen_port}"


def embedded_s3_keys(settings: Settings) -> S3Settings | None:
    """Address and keys of the embedded S3 server; None when the settings name another one.

    The keys are made once and kept in a file that only we can read; the port is a free one.
    """
    if settings.s3_endpoint:
        return None
    path = settings.keys / "s3.json"
    if not path.exists():
        document = {"access_key": secrets.token_hex(16), "secret_key": secrets.token_hex(24)}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file)
    keys = json.loads(path.read_text())
    return S3Settings(
        endpoint=f"http://127.0.0.1:{free_port()}",
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=Secret(keys["access_key"]),
        secret_key=Secret(keys["secret_key"]),
    )


@contextmanager
def only_service(settings: Settings) -> Iterator[None]:
    """Hold the state folder; Conflict when another service holds it. Its pid is in the file."""
    with only_holder(
        service_lock(settings),
        f"a service uses {settings.state}",
        hint="Stop it, or set MANAGED_STATE_DIR to another folder.",
    ):
        yield


def service_lock(settings: Settings) -> Path:
    return settings.state / "service.pid"


def serve(settings: Settings, say: Say) -> int:
    """Run the service until SIGTERM or Ctrl-C; the exit status. KeyboardInterrupt when one of them
    comes before all is up; nothing stays running then.
    """
    stopped, is_up = threading.Event(), threading.Event()

    def stop(*_: object) -> None:
        is_first = not stopped.is_set()
        stopped.set()
        if is_first and not is_up.is_set():
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    service = EmbeddedService(settings, say, stopped)
    with only_service(settings):
        try:
            service.start()
            is_up.set()
            say(f"managed serves on {service_url(settings)} (documentation: /docs)")
            say(f"token: {settings.api_token}   logs: {settings.state / 'log'}")
            service.keep_running()
            say("stopping")
        finally:
            service.stop()
    return 0
