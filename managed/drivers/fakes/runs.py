"""Detached runs on fake servers. Keeps `DetachedRuns`' contract without running anything.

What a script does is said by `perform`: it prints and ends with a status, or goes on running until
the test says `finish` or the server reboots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import Conflict
from managed.domain.runs import RunReport, RunRequest, RunState
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.runs import (
    LOG_BYTES_PER_LOOK,
    checked_run_id,
    delivery_of,
    request_document,
    whole_part,
)
from managed.drivers.ssh.failures import too_large
from managed.ports import RunDelivery
from managed.server_scripts._run_records import RUNS

STOPPED_STATUS = 143


@dataclass(frozen=True)
class Performed:
    """What a script printed, and its exit status, or None while it goes on."""

    log: bytes = b""
    exit_status: int | None = 0


@dataclass
class FakeRun:
    request: RunRequest
    boot_id: str
    log: bytes
    exit_status: int | None


@dataclass
class FakeRuns:
    """`perform` decides what a started run does; `started` lists every claim that was won."""

    shell: FakeShell
    perform: Callable[[RunRequest], Performed] = lambda _request: Performed()
    started: list[str] = field(default_factory=list)
    _runs: dict[tuple[int, str], FakeRun] = field(default_factory=dict)

    def delivery(self, request: RunRequest) -> RunDelivery:
        return delivery_of(request)

    def start(self, endpoint: Endpoint, request: RunRequest) -> None:
        checked_run_id(request.run_id)
        request_document(request)
        server = self.shell.reach(endpoint)
        if (id(server), request.run_id) in self._runs:
            return
        done = self.perform(request)
        run = FakeRun(request, server.boot_id, done.log, done.exit_status)
        self._runs[(id(server), request.run_id)] = run
        self.started.append(request.run_id)

    def look(self, endpoint: Endpoint, run_id: str, offset: int) -> RunReport:
        server = self.shell.reach(endpoint)
        run = self._runs.get((id(server), checked_run_id(run_id)))
        if run is None:
            return RunReport(RunState.ABSENT, None, "", "", offset)
        state = _state(server, run)
        piece = run.log[offset : offset + LOG_BYTES_PER_LOOK]
        log = whole_part(piece, all_is_there=state is not RunState.RUNNING)
        text = log.decode(errors="replace")
        return RunReport(state, run.exit_status, run.boot_id, text, offset + len(log))

    def stop(self, endpoint: Endpoint, run_id: str) -> None:
        server = self.shell.reach(endpoint)
        run = self._runs.get((id(server), checked_run_id(run_id)))
        if run is not None and _state(server, run) is RunState.RUNNING:
            run.exit_status = STOPPED_STATUS

    def forget(self, endpoint: Endpoint, run_id: str) -> None:
        server = self.shell.reach(endpoint)
        run = self._runs.get((id(server), checked_run_id(run_id)))
        if run is None:
            return
        if _state(server, run) is RunState.RUNNING:
            raise Conflict(f"the run {run_id} on {endpoint.describe()} has not ended")
        del self._runs[(id(server), run_id)]
        for path in [path for path in server.files if path.startswith(f"{RUNS}/{run_id}/")]:
            del server.files[path]

    def finish(self, endpoint: Endpoint, run_id: str, exit_status: int, log: bytes = b"") -> None:
        """Let a running run print and end."""
        run = self._runs[(id(self.shell.reach(endpoint)), run_id)]
        run.log += log
        run.exit_status = exit_status


@dataclass
class FakePolls:
    """`Polls` over the same fake servers and runs."""

    runs: FakeRuns

    async def look(
        self, endpoint: Endpoint, run_id: str, offset: int, *, timeout: float
    ) -> RunReport:
        return self.runs.look(endpoint, run_id, offset)

    async def boot_id(self, endpoint: Endpoint, *, timeout: float) -> str:
        return self.runs.shell.boot_id(endpoint)

    async def run(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        limit: int,
    ) -> CommandResult:
        result = self.runs.shell.run(endpoint, command, stdin=stdin, timeout=timeout)
        if len(result.stdout.encode()) + len(result.stderr.encode()) > limit:
            raise too_large(endpoint.describe(), limit)
        return result


def _state(server: FakeServer, run: FakeRun) -> RunState:
    if run.exit_status is not None:
        return RunState.FINISHED
    return RunState.RUNNING if run.boot_id == server.boot_id else RunState.UNKNOWN
