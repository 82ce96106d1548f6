"""The parts of an installation as processes of their own, as production runs them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from managed.lab.ports import free_port
from managed.settings import Settings
from managed.wiring import Installation, open_installation, prepare_installation
from tests.support.waiting import wait_until

SECONDS = 90.0
WORKERS = "tests.support.held_workers"


@dataclass
class Part:
    """One process; `address` is where it tells its numbers and its health."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return httpx.get(f"http://{self.address}/healthz", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def metrics(self) -> str:
        return httpx.get(f"http://{self.address}/metrics", timeout=10).text

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_for_end(self) -> int:
        return self.process.wait(SECONDS)


@dataclass
class Parts:
    settings: Settings
    folder: Path
    started: list[Part] = field(default_factory=list)

    @property
    def installation(self) -> Installation:
        return open_installation(self.settings)

    def worker(self, processes: int = 2) -> Part:
        """A worker that serves; its jobs are those of `tests.support.held_workers`."""
        command = ("-m", "celery", "--quiet", "-A", WORKERS, "worker", "--loglevel", "warning")
        return self._start("worker", command, {"MANAGED_WORKER_PROCESSES": str(processes)})

    def clock(self) -> Part:
        return self._start("clock", ("-m", "workers.schedule"), {})

    def _start(self, name: str, command: tuple[str, ...], more: Mapping[str, str]) -> Part:
        address = f"127.0.0.1:{free_port()}"
        log = self.folder / f"{name}-{len(self.started)}.log"
        environment = {
            **self.settings.environment(),
            **more,
            "MANAGED_METRICS_LISTEN": address,
            "MANAGED_LOG_FORMAT": "json",
            "EFFECTS": str(self.folder),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=output, stderr=output
            )
        part = Part(process, address, log)
        self.started.append(part)
        wait_until(part.is_healthy, timeout=SECONDS, what=f"the {name} is healthy")
        return part


@contextmanager
def parts(settings: Settings, folder: Path) -> Iterator[Parts]:
    """Prepared, nothing started; what was started is ended."""
    prepare_installation(settings)
    running = Parts(settings, folder)
    try:
        yield running
    finally:
        for part in running.started:
            part.process.kill()
            part.process.wait()
