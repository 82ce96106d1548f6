"""The embedded service of the demo and of tests: started as a process of its own, and ended again
with everything that stands around it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from managed.client import ManagedClient
from managed.domain.errors import Unavailable
from managed.lab.local_node import end_local_servers
from managed.lab.locks import holder
from managed.lab.service import service_lock, service_url
from managed.settings import Settings

_START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 90.0


@dataclass
class DemoService:
    """The embedded service as a process of its own, so that KEEP=1 can leave it running."""

    settings: Settings
    say: Callable[[str], None]

    def start(self) -> None:
        log = self.settings.state / "log" / "service.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "managed", "serve"],
                env=self.settings.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-800:]
                raise Unavailable(f"the service did not start:\n{tail}")
            time.sleep(0.2)
        self.say(f"the service is up on {service_url(self.settings)}")

    def client(self) -> ManagedClient:
        return ManagedClient(
            service_url(self.settings), self.settings.api_token.read_text().strip()
        )

    def _answers(self) -> bool:
        """Up means that everything is: the service says so after its last part."""
        log = self.settings.state / "log" / "service.log"
        if "managed serves on" not in log.read_text(errors="replace"):
            return False
        try:
            return httpx.get(f"{service_url(self.settings)}/healthz", timeout=2).is_success
        except httpx.HTTPError:
            return False


def clean_up(settings: Settings, say: Callable[[str], None]) -> None:
    """End service, servers and private libvirt daemon of an earlier or this demo; remove its state.

    Also after a crash, and when somebody has removed the state folder: its name is enough.
    """
    pid = holder(service_lock(settings))
    if pid is not None:
        say("ending the service")
        _end_process(pid)
    end_local_servers(settings)
    shutil.rmtree(settings.state, ignore_errors=True)
    shutil.rmtree(settings.runtime, ignore_errors=True)


def _end_process(pid: int) -> None:
    """TERM and wait; KILL when that takes too long. The service's children die with it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = threading.Event()
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while Path(f"/proc/{pid}").exists() and not _is_zombie(pid):
            if time.monotonic() > deadline:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return
            ended.wait(0.1)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True
