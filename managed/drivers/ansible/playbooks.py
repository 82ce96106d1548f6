"""Runs a playbook on one server by ansible-runner, in a private directory, under a supervisor."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ansible_runner.config.runner import RunnerConfig
from ansible_runner.exceptions import AnsibleRunnerException
from ansible_runner.runner import Runner

from managed.domain.connections import Endpoint
from managed.domain.errors import (
    InvalidInput,
    Json,
    ManagedError,
    MissingRequirement,
    PlaybookFailed,
    UnknownOutcome,
)
from managed.domain.secrets import Secret
from managed.drivers import processes
from managed.drivers.ansible import private_files
from managed.drivers.ansible.outcome import RunRecord, report_or_error
from managed.ports import Emit, PlaybookReport, RegisterChild

_DIRECTORY_PREFIX: Final = "run-"
_LONGEST_RUNTIME_PATH: Final = 50
_START_LIMIT: Final = 30
_END_LIMIT: Final = 20


class AnsiblePlaybooks:
    """The Playbooks port. `runtime_directory` should be on a tmpfs: keys are written there."""

    def __init__(self, playbooks_directory: Path, runtime_directory: Path) -> None:
        self._playbooks = playbooks_directory.resolve()
        self._runtime = runtime_directory.resolve()
        if len(str(self._runtime)) > _LONGEST_RUNTIME_PATH:
            raise MissingRequirement(
                f"the runtime directory {self._runtime} is too long for Unix sockets below it",
                hint=f"Choose one of at most {_LONGEST_RUNTIME_PATH} characters.",
            )

    def run(
        self,
        playbook: str,
        endpoint: Endpoint,
        *,
        variables: Mapping[str, Json],
        secrets: Mapping[str, Secret],
        emit: Emit,
        register_child: RegisterChild,
        timeout: float,
    ) -> PlaybookReport:
        path = self._playbooks / f"{playbook}.yml"
        if not path.is_file():
            raise InvalidInput(f"there is no playbook {playbook!r}")
        remove_orphaned_directories(self._runtime)
        record = RunRecord(playbook, emit, (*secrets.values(), endpoint.private_key))
        with (
            private_directory(self._runtime) as directory,
            _Watch(directory / "control", register_child, record, timeout) as watch,
        ):
            write_private_files(
                directory, private_files.private_files(directory, endpoint, variables, secrets)
            )
            exit_status = self._run(path, directory, watch)
        if watch.timed_out:
            raise UnknownOutcome(
                f"playbook {playbook} did not end within {timeout:.0f} seconds on "
                f"{endpoint.describe()}; it was ended",
                playbook=playbook,
            )
        outcome = report_or_error(record, exit_status, endpoint.describe())
        if isinstance(outcome, ManagedError):
            raise outcome
        return outcome

    def _run(self, path: Path, directory: Path, watch: _Watch) -> int | None:
        """Run ansible-playbook under the supervisor; None when it never started."""
        try:
            config = RunnerConfig(
                private_data_dir=str(directory),
                playbook=str(path),
                project_dir=str(self._playbooks),
                ident="run",
                fact_cache_type="memory",
                quiet=True,
            )
            config.prepare()
            config.command = private_files.supervised(
                config.command, directory / "control", directory
            )
            config.env = private_files.environment(directory, config.artifact_dir, self._playbooks)
            runner = Runner(config, cancel_callback=watch.poll, event_handler=watch.handle)
            runner.run()
        except AnsibleRunnerException as error:
            watch.raise_failure()
            raise PlaybookFailed(f"ansible-runner failed: {error}", playbook=path.stem) from error
        watch.raise_failure()
        return None if runner.rc is None else int(runner.rc)


class _Watch:
    """The worker's end of the supervisor's lifeline; ansible-runner calls it while it waits.

    It registers the child and lets it go, notices the timeout, and keeps what `emit` or
    `register_child` raised: an exception that left a callback would make ansible-runner forget
    its child. Closing the lifeline makes the supervisor end everything.
    """

    def __init__(
        self,
        path: Path,
        register_child: RegisterChild,
        record: RunRecord,
        timeout: float,
    ) -> None:
        self._path = path
        self._register_child = register_child
        self._record = record
        self._timeout = timeout
        self._lifeline: socket.socket | None = None
        self._failure: BaseException | None = None
        self._child: processes.ProcessIdentity | None = None
        self.timed_out = False

    def __enter__(self) -> _Watch:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._started = time.monotonic()
        self._ending_since: float | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._close_lifeline()
        self._listener.close()
        if self._child is not None:
            processes.end_survivors(self._child, grace=0)

    def poll(self) -> bool:
        """Called several times a second; True asks ansible-runner to kill, our last resort."""
        try:
            self._look()
        except BaseException as error:
            self._fail(error)
        ending = self._ending_since
        return ending is not None and time.monotonic() - ending > _END_LIMIT

    def handle(self, event: dict[str, Any]) -> bool:
        """Take one event; False keeps ansible-runner from writing it to a file."""
        if self._failure is None:
            try:
                self._record.add(event)
            except BaseException as error:
                self._fail(error)
        return False

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _look(self) -> None:
        now = time.monotonic()
        if self._child is None and self._ending_since is None:
            self._accept()
            if self._child is None and now - self._started > _START_LIMIT:
                raise PlaybookFailed("the supervisor of ansible-playbook did not start")
        if now - self._started > self._timeout and self._ending_since is None:
            self.timed_out = True
            self._end()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        self._lifeline = connection
        pid = _peer_pid(connection)
        self._child = processes.identity_of(pid)
        self._register_child(pid)
        connection.sendall(b"go")

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._end()

    def _end(self) -> None:
        self._ending_since = self._ending_since or time.monotonic()
        self._close_lifeline()
        self._listener.close()

    def _close_lifeline(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None


@contextmanager
def private_directory(runtime: Path) -> Iterator[Path]:
    """A new directory of mode 0700 that is gone afterwards; its name says whose it is."""
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    prefix = f"{_DIRECTORY_PREFIX}{os.getpid()}-{_start_tick(os.getpid())}-"
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=runtime))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def remove_orphaned_directories(runtime: Path) -> None:
    """Remove private directories whose worker is dead (killed together with its supervisor)."""
    for directory in runtime.glob(f"{_DIRECTORY_PREFIX}*"):
        pid, _, rest = directory.name.removeprefix(_DIRECTORY_PREFIX).partition("-")
        if pid.isdecimal() and rest.partition("-")[0] != str(_start_tick(int(pid))):
            shutil.rmtree(directory, ignore_errors=True)


def write_private_files(directory: Path, files: Mapping[str, str]) -> None:
    """Write the files below the directory, never readable by anyone else."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)


def _start_tick(pid: int) -> int | None:
    status = processes.process_status(pid)
    return None if status is None or status.is_dead else status.start_tick


def _peer_pid(connection: socket.socket) -> int:
    """Who is at the other end, as the kernel says."""
    credentials = struct.Struct("3i")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    return int(credentials.unpack(raw)[0])
