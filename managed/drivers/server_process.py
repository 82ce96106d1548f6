"""Servers of ours as child processes: S3, gateway, API, worker, clock."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from managed.domain.errors import Unavailable
from managed.drivers.processes import with_parent_death_signal


class ServerProcess:
    """A server that dies with the thread that started it (parent-death signal).

    It gets this environment and no other. `answers` tells whether it serves. `before_start` clears
    away, before each start, what a killed one has left. What it prints goes to the end of
    `log_file`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_file: Path,
        answers: Callable[[], bool],
        before_start: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._command = tuple(command)
        self._environment = dict(environment)
        self._log_file = log_file
        self._answers = answers
        self._before_start = before_start
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; running is fine. Returns at once: `wait` says when it serves. Whatever
        `before_start` raises comes out.
        """
        if self.is_running:
            return
        self._before_start()
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                with_parent_death_signal(self._command),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=0o077,
                start_new_session=True,
            )

    def wait(self, timeout: float = 20) -> None:
        """Wait until it serves. Unavailable when it ended or is silent after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self._answers():
            if not self.is_running:
                raise Unavailable(f"{self._name} ended while starting", log=self._last_lines())
            if time.monotonic() >= deadline:
                raise Unavailable(f"{self._name} does not answer", log=self._last_lines())
            time.sleep(0.05)

    def stop(self, timeout: float = 10) -> None:
        """TERM, then KILL after `timeout` seconds; stopped is fine."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _last_lines(self) -> str:
        return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-5:])
