"""A stand-in for somebody's webhook: a small HTTP server that keeps each call. Its contract: it
checks the signature as docs/guides/notifications.md tells receivers to, with the code from there,
and answers 401 where that fails.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from managed.domain.secrets import Secret

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "notifications.md"


def verification_of_the_guide() -> Callable[..., bool]:
    """The function that the guide shows, as it stands there."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own guide
    verify: Callable[..., bool] = names["is_genuine"]
    return verify


@dataclass(frozen=True)
class Call:
    delivery_id: str
    document: dict[str, Any]
    path: str
    host: str


@dataclass
class StandInReceiver:
    """`status` is what it answers to genuine calls, `location` where it would send them."""

    secret: Secret
    calls: list[Call] = field(default_factory=list)
    refused: int = 0
    status: int = 204
    location: str = ""
    now: Callable[[], float] = time.time

    def receive(self, handler: BaseHTTPRequestHandler) -> int:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        header = handler.headers["Managed-Signature"]
        if not verification_of_the_guide()(self.secret.reveal(), header, body, self.now()):
            self.refused += 1
            return 401
        document = json.loads(body)
        call = Call(
            handler.headers["Managed-Delivery"], document, handler.path, handler.headers["Host"]
        )
        self.calls.append(call)
        return self.status


@contextmanager
def serving(receiver: StandInReceiver, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The receiver on loopback; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(receiver.receive(self))
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    host, scheme = ("localhost", "https") if tls else ("127.0.0.1", "http")
    try:
        yield f"{scheme}://{host}:{server.server_port}/hook?from=managed"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
