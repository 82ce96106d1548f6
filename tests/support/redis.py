"""A real Redis of the tests' own, by default on loopback, to be killed and started again."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from managed.lab.ports import free_port
from tests.support.waiting import wait_until


class RedisServer:
    """Keeps nothing on disk: what it held is gone when it has been killed."""

    def __init__(self, address: str, password: str) -> None:
        self._address = address
        self._password = password
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}{self._address}:{self._port}/0"

    def start(self) -> None:
        listen = ["--port", str(self._port), "--bind", self._address]
        command = ["redis-server", *listen, "--save", "", "--requirepass", self._password]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, timeout=30, what="the tests' Redis answers")

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._process = None

    def fall_silent(self) -> None:
        """It accepts connections (the kernel does) and answers nothing: as behind a firewall."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self._address, self._port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                # It asks for the password first, when it has one.
                return connection.recv(5) in (b"+PONG", b"-NOAU")
        except OSError:
            return False


@contextmanager
def redis(address: str = "127.0.0.1", password: str = "") -> Iterator[RedisServer]:
    """Without a password nobody is asked for one."""
    server = RedisServer(address, password)
    server.start()
    try:
        yield server
    finally:
        server.kill()
