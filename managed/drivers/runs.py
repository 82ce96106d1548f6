"""Detached runs over SSH: the `DetachedRuns` port. What runs on the server is
`managed/server_scripts/runner.py`, put there under a name that holds its hash.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import CommandFailed, Conflict, InvalidInput
from managed.domain.runs import RunReport, RunRequest, RunState
from managed.drivers.ssh.background import wait_for
from managed.drivers.ssh.commands import RawResult
from managed.drivers.ssh.shell import SshShell
from managed.ports import RunDelivery
from managed.server_scripts import script_source
from managed.server_scripts._run_records import (
    LOG_LIMIT,
    RUN_ID,
    RUNS,
    SECONDS_TO_END,
    SECONDS_TO_START,
)
from managed.server_scripts.runner import EXIT_RUNNING

LOG_BYTES_PER_LOOK: Final = 65536
_LIBRARY: Final = "/usr/local/lib/managed"
_NOT_INSTALLED: Final = 90

# The runner ends a log with one line more when it has cut it at its limit.
_LONGEST_LOG: Final = LOG_LIMIT + 4096
_SAID: Final = "managed-look: "
_ANSWER: Final = re.compile(
    rb"^%b(?:(absent)|(running|unknown|finished ([0-9]{1,3}))((?: [0-9a-f-]{36})?) ?)\n"
    % _SAID.encode(),
    re.MULTILINE,
)

_CALL_RUNNER: Final = f'[ -s "$1" ] || exit {_NOT_INSTALLED}; exec python3 -I -S "$@"'

# One shell without any fork as long as the supervisor lives; Python would need ten times as long
# to start, on every server, every second. It knows of no more than what the record says:
# status, else a living supervisor, else a starter that holds its lock, else processes of the run
# that outlived their supervisor; with none of these the run is given up for good.
# What it found is said on a marked line of its own, for the login shell's start files may print.
_LOOK: Final = rf"""
cd {RUNS}/"$1" 2>/dev/null || {{ printf '\n{_SAID}absent\n'; exit; }}
boot= pid= tick= state=
read -r boot <boot_id
read -r now </proc/sys/kernel/random/boot_id
status_known() {{ [ -e status ] && read -r status <status && state="finished $status"; }}
supervised() {{
  [ -e pid ] && read -r pid tick <pid
  [ "$boot" = "$now" ] && [ "${{pid:-0}}" != 0 ] && read -r line 2>/dev/null </proc/"$pid"/stat ||
    return 1
  set -- ${{line##*) }}
  [ "$1" != Z ] && [ "$1" != X ] && shift 19 && [ "$1" = "$tick" ]
}}
starting() {{ [ ! -e pid ] && ! flock --shared --nonblock starting true; }}
left_behind() {{ grep -qszxF "MANAGED_RUN_ID=$1" /proc/[0-9]*/environ; }}
if status_known; then :
elif supervised || starting || supervised || {{ [ "$boot" = "$now" ] && left_behind "$1"; }}; then
  state=running
elif status_known; then :
else
  (set -C; echo 0 0 >pid) 2>/dev/null && rm -f /run/managed/secrets/"$1"
  state=unknown
fi
printf '\n{_SAID}%s\n' "$state $boot"
tail -c +$(($2 + 1)) log | head -c {LOG_BYTES_PER_LOOK}
"""


class SshPolls:
    """`Polls`: coroutines for the SSH driver's event loop, over the shell's held connections."""

    def __init__(self, shell: SshShell) -> None:
        self._shell = shell

    async def look(
        self, endpoint: Endpoint, run_id: str, offset: int, *, timeout: float
    ) -> RunReport:
        command = look_command(run_id, offset)
        result = await self._shell.run_async(endpoint, command, timeout=timeout)
        _require_success(endpoint, f"looking at the run {run_id}", result)
        return report_of(result.stdout, offset)

    async def boot_id(self, endpoint: Endpoint, *, timeout: float) -> str:
        return await self._shell.boot_id_async(endpoint, timeout=timeout)

    async def run(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        limit: int,
    ) -> CommandResult:
        result = await self._shell.run_async(
            endpoint, command, stdin=stdin, timeout=timeout, limit=limit
        )
        return result.decoded()


class SshRuns:
    """`DetachedRuns`. Needs root on the servers, Python 3.9."""

    def __init__(self, shell: SshShell) -> None:
        self._shell = shell
        self._polls = SshPolls(shell)

    def delivery(self, request: RunRequest) -> RunDelivery:
        return delivery_of(request)

    def start(self, endpoint: Endpoint, request: RunRequest) -> None:
        checked_run_id(request.run_id)
        payload = request_document(request)
        result = self._call_runner(endpoint, ("start",), payload, SECONDS_TO_START + 30)
        _require_success(endpoint, f"starting the run {request.run_id}", result)

    def look(self, endpoint: Endpoint, run_id: str, offset: int) -> RunReport:
        return wait_for(self._polls.look(endpoint, run_id, offset, timeout=60))

    def stop(self, endpoint: Endpoint, run_id: str) -> None:
        arguments = ("stop", checked_run_id(run_id))
        result = self._call_runner(endpoint, arguments, b"", 2 * SECONDS_TO_END + 30)
        _require_success(endpoint, f"stopping the run {run_id}", result)

    def forget(self, endpoint: Endpoint, run_id: str) -> None:
        result = self._call_runner(endpoint, ("forget", checked_run_id(run_id)), b"", 60)
        if result.exit_status == EXIT_RUNNING:
            raise Conflict(f"the run {run_id} on {endpoint.describe()} has not ended")
        _require_success(endpoint, f"forgetting the run {run_id}", result)

    def _call_runner(
        self, endpoint: Endpoint, arguments: Sequence[str], stdin: bytes, timeout: float
    ) -> RawResult:
        """Call the runner on the server; put it there first when it is not there yet."""
        path, source = runner_file()
        command = ("sh", "-c", _CALL_RUNNER, "runner", path, *arguments)

        def call() -> RawResult:
            return wait_for(self._shell.run_async(endpoint, command, stdin=stdin, timeout=timeout))

        result = call()
        if result.exit_status != _NOT_INSTALLED:
            return result
        self._shell.run(endpoint, ("mkdir", "-p", _LIBRARY))
        self._shell.write_file(endpoint, path, source, 0o755)
        return call()


@cache
def runner_file() -> tuple[str, bytes]:
    """The runner's path on servers and its content."""
    source = script_source("runner").encode()
    return f"{_LIBRARY}/runner-{hashlib.sha256(source).hexdigest()[:16]}.py", source


def delivery_of(request: RunRequest) -> RunDelivery:
    """How a playbook starts this run. Secrets would have to travel in its variables: refused."""
    checked_run_id(request.run_id)
    if request.secrets:
        raise InvalidInput("a run with secrets is started over SSH only", run_id=request.run_id)
    path, source = runner_file()
    return RunDelivery(path, source.decode(), request_document(request).decode())


def checked_run_id(run_id: str) -> str:
    """A run id is a directory's and a unit's name; raises InvalidInput when it can't be."""
    if not RUN_ID.fullmatch(run_id):
        raise InvalidInput(f"{run_id!r} is not a run id")
    return run_id


def request_document(request: RunRequest) -> bytes:
    """The request as the runner reads it; the one place where its secrets are in the clear."""
    document = {
        "run_id": request.run_id,
        "script": request.script,
        "arguments": request.arguments,
        "environment": dict(request.environment),
        "secrets": {name: secret.reveal() for name, secret in request.secrets.items()},
        "time_limit": request.time_limit,
    }
    return json.dumps(document).encode()


def look_command(run_id: str, offset: int) -> tuple[str, ...]:
    return ("sh", "-c", _LOOK, "look", checked_run_id(run_id), str(offset))


def report_of(output: bytes, offset: int) -> RunReport:
    """What the look printed: after what others may have printed before it, its line with the
    state, then the log as it is from `offset` on. Raises CommandFailed when there is no such line.
    """
    found = _ANSWER.search(output)
    if found is None:
        said = output[:200].decode(errors="replace")
        raise CommandFailed(
            f"the look at a run printed no state but {said!r}",
            hint="Start files of root's shell that print or exit (.bashrc) get in the way.",
        )
    if found[1]:
        return RunReport(RunState.ABSENT, None, "", "", offset)
    state = RunState(found[2].split()[0].decode())
    log = output[found.end() :][:LOG_BYTES_PER_LOOK][: max(0, _LONGEST_LOG - offset)]
    whole = whole_part(log, all_is_there=state is not RunState.RUNNING)
    return RunReport(
        state,
        int(found[3]) if found[3] else None,
        found[4].strip().decode(),
        whole.decode(errors="replace"),
        offset + len(whole),
    )


def whole_part(log: bytes, *, all_is_there: bool) -> bytes:
    """The part of a piece of log that can be shown by itself: whole lines, or all of it when no
    more will come. A piece without any line's end must go on growing, or be cut between
    characters when it has reached the size of a look.
    """
    is_full = len(log) >= LOG_BYTES_PER_LOOK
    if all_is_there and not is_full:
        return log
    lines = log[: log.rfind(b"\n") + 1]
    if lines or not is_full:
        return lines
    for cut in range(1, 4):
        if log[-cut] & 0xC0 == 0xC0:
            return log[:-cut]
    return log


def _require_success(endpoint: Endpoint, what: str, result: RawResult) -> None:
    if result.exit_status != 0:
        said = result.stderr.decode(errors="replace").strip()[-1000:]
        raise CommandFailed(
            f"{what} on {endpoint.describe()} failed with status {result.exit_status}: {said}",
            hint="Servers need root access and Python 3.9 or newer.",
            status=result.exit_status,
        )
