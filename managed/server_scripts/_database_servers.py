"""Database servers as processes: the distribution's service, and one of our own for loading.

Our own is reachable only through a socket in a directory that nobody else may enter, so that no
application meets a half-loaded database, or writes into it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from managed.server_scripts._run import ScriptFailed, program_environment, run_program, say

SECONDS_TO_START = 600.0
SECONDS_TO_ABORT = 10.0
CHUNK = 1 << 20
OUTPUT_READ = 4096
SHOWN_OUTPUT = 300
ERROR_WORDS = ("ERROR", "FATAL", "PANIC")


def stop_unit(unit: str) -> None:
    run_program(("systemctl", "stop", unit))


def start_unit(unit: str) -> None:
    """Start the service, however often it has failed before."""
    run_program(("systemctl", "reset-failed", unit), accepted=(0, 1))
    run_program(("systemctl", "start", unit))


def dependents_to_start(unit: str) -> list[str]:
    """What systemd stops with the service, or does not start without it, and does not start again
    by itself: of these units those that run, and those that the boot was to start.
    """
    words = ("-p", "RequiredBy", "-p", "BoundBy", "-p", "ConsistsOf")
    names = sorted(set(run_program(("systemctl", "show", "--value", *words, unit)).split()))
    return [
        name
        for name in names
        if succeeds(("systemctl", "is-active", name))
        or run_program(("systemctl", "is-enabled", name), accepted=(0, 1)).strip() == "enabled"
    ]


def start_dependents(units: Sequence[str]) -> None:
    """Start them again; why one does not is in its own journal, and no matter of the load."""
    for unit in units:
        if not succeeds(("systemctl", "start", unit)):
            say(f"{unit} does not start")


def as_user(uid: int, gid: int, last_signal: str) -> tuple[str, ...]:
    """Words before a command, that it runs as this user and ends with the script."""
    return (
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"),
        *(f"--pdeathsig={last_signal}", "--"),
    )


class PrivateServer:
    """A database server as our own child while the `with` lasts; it ends cleanly, or ScriptFailed.

    `stop` is the signal for a clean end, `abort` the one for a quick end after an exception.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        is_ready: Callable[[], bool],
        stop: signal.Signals,
        abort: signal.Signals,
    ) -> None:
        self.command = command
        self.log = log
        self.is_ready = is_ready
        self.stop = stop
        self.abort = abort

    def __enter__(self) -> PrivateServer:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=program_environment(),
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._end_quickly()
            raise
        return self

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ScriptFailed(f"it does not start on new files: {complaint_in(self.log)}")
            time.sleep(0.1)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._end_quickly()
            return
        self.process.send_signal(self.stop)
        status = self.process.wait()
        if status != 0:
            raise ScriptFailed(f"it ended with status {status}: {complaint_in(self.log)}")

    def _end_quickly(self) -> None:
        self.process.send_signal(self.abort)
        try:
            self.process.wait(SECONDS_TO_ABORT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def feed(command: Sequence[str], pieces: Iterator[bytes], log: Path) -> None:
    """Run a client that reads all of this; ScriptFailed with what it said if it is not content."""
    with log.open("wb") as errors:
        client = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=program_environment(),
        )
    try:
        if client.stdin is not None:
            # A client that has met an error ends before its input does.
            with contextlib.suppress(BrokenPipeError), client.stdin as stdin:
                for piece in pieces:
                    stdin.write(piece)
        status = client.wait()
    finally:
        client.kill()
        client.wait()
    if status != 0:
        raise ScriptFailed(complaint_in(log))


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece


def succeeds(command: Sequence[str]) -> bool:
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=program_environment(),
        check=False,
    )
    return ended.returncode == 0


def complaint_in(log: Path) -> str:
    """What went wrong, as a program said it: the first error near the end, or its last line."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - OUTPUT_READ))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    errors = [line for line in lines if any(word in line for word in ERROR_WORDS)]
    said = (errors[:1] or lines[-1:] or ["it said nothing"])[0]
    return said.strip()[:SHOWN_OUTPUT]
