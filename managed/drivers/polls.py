"""Short questions for many servers at once: implements `managed.ports.Polls`."""

from __future__ import annotations

from managed.domain.connections import Endpoint
from managed.domain.errors import CommandFailed
from managed.domain.runs import RunReport
from managed.drivers.runs import look_command, report_of
from managed.drivers.ssh.shell import SshShell


class SshPolls:
    """Coroutines for the SSH driver's event loop; connections are the shell's held ones."""

    def __init__(self, shell: SshShell) -> None:
        self._shell = shell

    async def look(
        self, endpoint: Endpoint, run_id: str, offset: int, *, timeout: float
    ) -> RunReport:
        command = look_command(run_id, offset)
        result = await self._shell.run_async(endpoint, command, timeout=timeout)
        if result.exit_status != 0:
            raise CommandFailed(
                f"looking at the run {run_id} on {endpoint.describe()} failed with status "
                f"{result.exit_status}: {result.stderr[-500:].decode(errors='replace')}"
            )
        return report_of(result.stdout, offset)

    async def boot_id(self, endpoint: Endpoint, *, timeout: float) -> str:
        return await self._shell.boot_id_async(endpoint, timeout=timeout)
