"""What workers and clock tell of themselves: `/metrics` for Prometheus and `/healthz`, at the
address of MANAGED_METRICS_LISTEN. There is no login: it is an address that only those reach who
watch over the service. Nothing of a customer is told there.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from managed.domain.addresses import host_and_port
from managed.domain.errors import Conflict
from managed.settings import Settings

log = structlog.get_logger()

_SETTING: Final = "MANAGED_METRICS_LISTEN"
_CLIENT_SECONDS: Final = 5.0


class Beat:
    """Something that has to happen again and again; it is healthy while it has happened within
    `limit` seconds.
    """

    def __init__(self, name: str, text: str, registry: CollectorRegistry, limit: float) -> None:
        self._gauge = Gauge(name, text, registry=registry)
        self._limit = limit
        self._last = time.monotonic()

    def now(self) -> None:
        self._gauge.set_to_current_time()
        self._last = time.monotonic()

    @property
    def is_healthy(self) -> bool:
        return time.monotonic() - self._last < self._limit


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, beats: Sequence[Beat]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.registry = registry
        self.beats = beats
        super().__init__((host, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._answer(HTTPStatus.OK, generate_latest(self.server.registry))
        elif self.path == "/healthz":
            is_healthy = all(beat.is_healthy for beat in self.server.beats)
            status = HTTPStatus.OK if is_healthy else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, b"ok\n" if is_healthy else b"it does not get on\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"here are /metrics and /healthz\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody needs a line for each of these requests."""

    def _answer(self, status: HTTPStatus, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def tell(settings: Settings, registry: CollectorRegistry, beats: Sequence[Beat]) -> None:
    """Listen in a thread, if the settings say where. Conflict when somebody else does."""
    if not settings.metrics_listen:
        return
    host, port = host_and_port(settings.metrics_listen, _SETTING)
    try:
        server = _Server(host, port, registry, beats)
    except OSError as error:
        raise Conflict(
            f"nobody can listen at {settings.metrics_listen}: {error.strerror}",
            hint=f"Each worker and each clock of a machine needs its own {_SETTING}.",
        ) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    log.info("metrics_told", address=settings.metrics_listen)
