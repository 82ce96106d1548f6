"""The package cache, really started, before a small mirror of the test's own."""

from __future__ import annotations

import shutil
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from managed.domain.errors import Conflict
from managed.drivers.local_ports import port_is_free
from managed.lab import apt_cache
from managed.lab.ports import free_port
from managed.lab.service import EmbeddedService
from managed.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("apt-cacher-ng", path="/usr/sbin:/usr/bin") is None,
        reason="apt-cacher-ng is a convenience and is not installed",
    ),
]

PACKAGE = b"what a package holds" * 1000


class Mirror(BaseHTTPRequestHandler):
    """Serves one file and counts how often it is fetched."""

    fetched = 0

    def do_GET(self) -> None:
        type(self).fetched += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(PACKAGE)))
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 02:00:00 GMT")
        self.end_headers()
        self.wfile.write(PACKAGE)

    def log_message(self, *_arguments: object) -> None:
        """The test's output is its own."""


@pytest.fixture
def mirror() -> Iterator[str]:
    Mirror.fetched = 0
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_package_is_fetched_once_and_nobody_else_is_served(
    tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt_cache, "host_proxy", lambda: None)
    port = free_port()
    cache = apt_cache.apt_cache_server(tmp_path, port, tmp_path / "log")
    cache.start()
    try:
        cache.wait(30)
        proxy = urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{port}"})
        guest = urllib.request.build_opener(proxy)
        for _ in range(3):
            with guest.open(f"{mirror}/debian/pool/main/s/shop/shop_1.0_all.deb") as answer:
                assert answer.read() == PACKAGE
        assert Mirror.fetched == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
    finally:
        cache.stop()
    assert port_is_free(port)


def test_a_restarted_service_has_its_cache_where_its_servers_look_for_it(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)

    def start() -> tuple[EmbeddedService, str]:
        service = EmbeddedService(settings, lambda _: None)
        service._start_apt_cache()
        return service, service._environment(None)["MANAGED_LAB_APT_PROXY"]

    service, first = start()
    service.stop()
    service, second = start()
    service.stop()
    assert second == first
    with socket.create_server(("127.0.0.1", int(first.rpartition(":")[2]))):
        with pytest.raises(Conflict, match=first.rpartition(":")[2]) as caught:
            start()
        assert "Stop what listens there" in caught.value.hint
