"""Follows one script: its log, its end, its exit status, its time limit."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from typing import IO, Any

from managed.server_scripts._run_records import (
    LOG_LIMIT,
    SECONDS_TO_END,
    kill,
    marked_processes,
    record_of,
    start_tick,
    sync_directory,
    take_over,
)
from managed.server_scripts._run_secrets import take_secrets

STATUS_TIME_LIMIT = 124
STATUS_NOT_STARTED = 126
STATUS_STOPPED = 143
STOPPED = "told to end"
SHUT_DOWN = "ended by the system"
TIME_IS_UP = "the time limit is over"
# Who else holds the script's output may go on writing to it; what was in the pipe is read.
READS_AFTER_THE_END = 17


def supervise(run_id: str) -> None:
    record = record_of(run_id)
    wakeup = catch_signals()
    if not take_over(record, f"{os.getpid()} {start_tick(os.getpid())}"):
        return
    with open(os.path.join(record, "request.json"), encoding="utf-8") as file:
        request = json.load(file)
    with open(os.path.join(record, "log"), "ab", buffering=0) as file:
        log = BoundedLog(file)
        try:
            process, output = run_script(run_id, record, request)
        except OSError as error:
            log.say(f"the script could not be started: {error}")
            finish(record, STATUS_NOT_STARTED)
            return
        status = follow(process, output, record, wakeup, log, request["time_limit"])
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
    if status is not None:
        finish(record, status)


def catch_signals() -> int:
    """A pipe that becomes readable at SIGTERM and SIGCHLD."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return reader


def run_script(
    run_id: str, record: str, request: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the script by what its first line names: /var may be mounted noexec.

    Returns it with the end of a pipe from which its output comes, without waiting for it.
    """
    path = os.path.join(record, "script")
    with open(path, encoding="utf-8") as file:
        first = file.readline()
    interpreter = first[2:].strip().split(maxsplit=1) if first.startswith("#!") else ["/bin/sh"]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        **request["environment"],
        **(take_secrets(run_id) if request["has_secrets"] else {}),
        "MANAGED_RUN_DIR": record,
        "MANAGED_RUN_ID": run_id,
    }
    output, writer = os.pipe()
    os.set_blocking(output, False)
    try:
        process = subprocess.Popen(
            [*interpreter, path, *request["arguments"]],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(writer)
    return process, output


class BoundedLog:
    """Takes everything, keeps LOG_LIMIT bytes; a full disk stops the log and not the run."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.left = LOG_LIMIT
        self.is_cut = False

    def write(self, data: bytes) -> None:
        kept = data[: self.left]
        self.left -= len(kept)
        with contextlib.suppress(OSError):
            while kept:
                kept = kept[self.file.write(kept) :]
        if len(data) > 0 and self.left == 0 and not self.is_cut:
            self.is_cut = True
            self.say(f"the log is cut here: {LOG_LIMIT} bytes are the limit")

    def say(self, text: str) -> None:
        """A line of our own; there are few, and they are not counted."""
        with contextlib.suppress(OSError):
            self.file.write(f"\nmanaged: {text}\n".encode())


def follow(
    process: subprocess.Popen[bytes],
    output: int,
    record: str,
    wakeup: int,
    log: BoundedLog,
    time_limit: int,
) -> int | None:
    """Log what the script prints until it ends. Its exit status, as a shell would give it; None
    when the system ended us (shutdown): then nobody shall take the run for ended by itself.
    """
    poller = select.poll()
    poller.register(wakeup, select.POLLIN)
    poller.register(output, select.POLLIN)
    ending = Ending(process, time_limit)
    while process.poll() is None:
        for handle, _ in poller.poll(ending.patience()):
            if handle == wakeup:
                if signal.SIGTERM in os.read(wakeup, 4096):
                    asked = os.path.exists(os.path.join(record, "stop"))
                    ending.begin(STOPPED if asked else SHUT_DOWN, log)
            elif not copy(output, log):
                poller.unregister(output)
        ending.go_on(log)
    for _ in range(READS_AFTER_THE_END):
        if not copy(output, log):
            break
    if ending.reason is not None:
        kill(marked_processes(os.path.basename(record)), signal.SIGKILL)
    return exit_status(process.returncode, ending.reason)


class Ending:
    """Whether and why the script is being ended: TERM first, KILL when it does not obey."""

    def __init__(self, process: subprocess.Popen[bytes], time_limit: int) -> None:
        self.process = process
        self.reason: str | None = None
        self.time_limit = time_limit
        self.next_at = time.monotonic() + time_limit if time_limit else None

    def patience(self) -> float | None:
        """Milliseconds until something is to do; None: nothing by itself."""
        if self.next_at is None:
            return None
        return max(0.0, self.next_at - time.monotonic()) * 1000

    def begin(self, reason: str, log: BoundedLog) -> None:
        if self.reason is None:
            self.reason = reason
            log.say(reason)
            self._signal(signal.SIGTERM)

    def go_on(self, log: BoundedLog) -> None:
        if self.next_at is None or time.monotonic() < self.next_at:
            return
        if self.reason is None:
            self.begin(TIME_IS_UP, log)
        else:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.next_at = time.monotonic() + SECONDS_TO_END


def exit_status(returncode: int, reason: str | None) -> int | None:
    if reason == SHUT_DOWN:
        return None
    if reason == TIME_IS_UP:
        return STATUS_TIME_LIMIT
    status = returncode if returncode >= 0 else 128 - returncode
    # A script that ends well after TERM has not done its work.
    return STATUS_STOPPED if reason == STOPPED and status == 0 else status


def copy(output: int, log: BoundedLog) -> bool:
    """Log what is there to read now; False at the end of it."""
    try:
        data = os.read(output, 65536)
    except BlockingIOError:
        return True
    log.write(data)
    return bool(data)


def finish(record: str, status: int) -> None:
    path = os.path.join(record, ".status")
    with open(path, "r+") as file:
        file.write(f"{status}\n")
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    os.rename(path, os.path.join(record, "status"))
    sync_directory(record)
