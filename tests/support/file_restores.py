"""Real backups and restores of files: the real engine and drivers, real restic through the real
gateway, a real S3 server, and cells as servers. Only the poller is a plain loop, and who kills
workers is a function.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import Engine as Database

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import Json
from managed.domain.jobs import Job, JobKind
from managed.domain.questions import RunEnded
from managed.domain.runs import RunReport, RunState
from managed.domain.secrets import SecretPurpose
from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.domain.snapshots import account_of
from managed.drivers.children import LocalChildren
from managed.drivers.fakes.playbooks import FakePlaybooks
from managed.drivers.runs import SshPolls, SshRuns
from managed.drivers.ssh.keys import new_key_pair, public_key_of
from managed.drivers.ssh.shell import SshShell
from managed.drivers.ssh.transfers import SshTransfers
from managed.drivers.ssh.tunnels import SshTunnels
from managed.lab.cells import Cell
from managed.ports import Transfers
from managed.storage.catalogue import Catalogue
from managed.storage.database import writing
from managed.storage.inventory import Inventory
from managed.storage.job_queue import JobQueue, NewJob
from managed.storage.leases import LeasedJobs
from managed.storage.sessions import SessionRecords
from managed.storage.vault import SealedVault
from managed.storage.waiting import OpenQuestion, WaitingJobs
from managed.workflows import backup, restore_files
from managed.workflows.engine import Engine, RunEnd
from managed.workflows.parts.gateway_socket import GATEWAY_SOCKET
from managed.workflows.parts.prepare import RESTIC_ON_SERVERS, prepare
from managed.workflows.steps import Outcome, Step, StepContext, Workflow
from managed.workflows.world import Sources, World
from tests.support.storage import Storage, restic_binary
from tests.support.waiting import wait_until

BACKED_UP = ("/srv/backed-up",)
"""Alone, because a backup of a whole cell takes long."""

_LEASE = timedelta(minutes=5)
_SECONDS = 240.0


class WorkerKilled(BaseException):
    """The worker is gone, and with it what it had in mind to record."""


@dataclass
class MortalTransfers:
    """The real ones, by workers of which the next is killed in the midst of sending."""

    transfers: Transfers
    dies: bool = False

    def send(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        chunks: Iterable[bytes],
        *,
        timeout: float,
    ) -> CommandResult:
        return self.transfers.send(endpoint, command, self._passed(chunks), timeout=timeout)

    def _passed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk[: len(chunk) // 2] if self.dies else chunk
            if self.dies:
                self.dies = False
                raise WorkerKilled


def _part_backup(_context: StepContext) -> Sequence[str]:
    return BACKED_UP


_BACKUP = Workflow(
    kind=JobKind.BACKUP,
    version=1,
    time_limit=timedelta(hours=1),
    steps=(
        Step("open_repository", backup.open_repository),
        Step("prepare", prepare),
        Step("take", backup.taking(_part_backup), undo=backup.stop_run),
        Step("find_snapshot", backup.find_snapshot),
        Step("keep_manifest", backup.keeping_manifest(_part_backup)),
        Step("verify", backup.verify),
    ),
)


@dataclass
class FileBench:
    """Servers on record and workers for them. After the first call of the step `dies_after` the
    worker is killed.
    """

    database: Database
    place: Storage
    ahead: timedelta = timedelta()
    dies_after: str = ""
    deaths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shell = SshShell()
        self.queue = JobQueue(self.database)
        self.inventory = Inventory(self.database)
        self.catalogue = Catalogue(self.database)
        self.vault = SealedVault(self.database, os.urandom(32), self.clock)
        self.transfers = MortalTransfers(SshTransfers())
        self.world = self._world()

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def add(self, cell: Cell, name: str) -> str:
        """The cell as a server under management, prepared, with an empty repository; its id."""
        server = Server(
            server_id=f"00000000-0000-4000-8000-{len(name):0>2}{os.urandom(5).hex()}",
            name=name,
            origin=ServerOrigin.ENROLLED,
            status=ServerStatus.ACTIVE,
            address=cell.address,
            ssh_port=cell.port,
            ssh_user="root",
            host_key=cell.host_key,
            operating_system="",
        )
        with writing(self.database) as connection:
            self.inventory.add(connection, server, self.clock())
        server_id = server.server_id
        self.vault.keep(server_id, SecretPurpose.LOGIN_KEY, cell.private_key)
        repository = self.place.new_repository(account_of(server_id))
        self.vault.keep(server_id, SecretPurpose.REPOSITORY_PASSWORD, repository.password)
        self.inventory.set_repository_key(server_id, repository.key_id)
        self.on(cell, f"mkdir -p {os.path.dirname(RESTIC_ON_SERVERS)}")
        content = restic_binary().read_bytes()
        self.shell.write_file(cell.endpoint, RESTIC_ON_SERVERS, content, 0o755)
        return server_id

    def on(self, cell: Cell, script: str, stdin: bytes = b"") -> str:
        """What root does on the server."""
        done = self.shell.run(cell.endpoint, ("sh", "-ec", script), stdin=stdin)
        assert done.exit_status == 0, (script, done)
        return done.stdout

    def python_on(self, cell: Cell, script: str) -> Any:
        done = self.shell.run(cell.endpoint, ("python3", "-"), stdin=script.encode())
        assert done.exit_status == 0, done.stderr
        return json.loads(done.stdout or "null")

    def back_up(self, server_id: str) -> str:
        """The snapshot of a backup that was proven."""
        job = self.finish(server_id, JobKind.BACKUP)
        assert job.status.value == "succeeded", job.error
        return str(self.catalogue.of_server(server_id)[0].snapshot_id)

    def restore(self, server_id: str, **parameters: Json) -> Job:
        return self.finish(server_id, JobKind.RESTORE_FILES, **parameters)

    def finish(self, server_id: str, kind: JobKind, **parameters: Json) -> Job:
        new = NewJob(
            server_id=server_id,
            kind=kind,
            workflow_version=1,
            parameters=parameters,
            time_limit=timedelta(hours=1),
            requested_by="test",
        )
        job_id = self.queue.submit(new, self.clock()).job_id
        while not (job := self.queue.job(job_id)).status.is_final:
            try:
                end = self._engine().run(job_id)
            except WorkerKilled:
                self.ahead += _LEASE + timedelta(seconds=1)
                continue
            if end is RunEnd.WAITING:
                self._answer(server_id)
            elif end is RunEnd.LATER:
                due = self.queue.job(job_id).next_attempt_at
                assert due is not None
                self.ahead += max(due - self.clock(), timedelta())
        return job

    def _answer(self, server_id: str) -> None:
        waiting = WaitingJobs(self.database)
        [asked] = [q for q in waiting.questions() if q.server_id == server_id]
        question = asked.question
        assert isinstance(question, RunEnded)
        with ExitStack() as stack:
            if question.tunnel:
                endpoint, socket = self.world.endpoint(server_id), self.world.gateway.socket()
                tunnel = self.world.tunnels.reverse_socket(endpoint, GATEWAY_SOCKET, socket)
                stack.enter_context(tunnel)
            answer = self._ended_run(asked, question)
        assert waiting.wake(asked, {"outcome": "answered", **answer})

    def _ended_run(self, asked: OpenQuestion, question: RunEnded) -> dict[str, Json]:
        endpoint = self.world.endpoint(asked.server_id)

        def has_ended() -> bool:
            return self._look(endpoint, question).state is not RunState.RUNNING

        wait_until(has_ended, timeout=_SECONDS, what=f"{question.run_id} has ended")
        report = self._look(endpoint, question)
        return {
            "state": report.state.value,
            "exit_status": report.exit_status,
            "boot_id": report.boot_id,
        }

    def _look(self, endpoint: Endpoint, question: RunEnded) -> RunReport:
        return self.world.runs.look(endpoint, question.run_id, question.offset)

    def _engine(self) -> Engine:
        found = (_BACKUP, restore_files.WORKFLOW)
        return Engine(
            store=LeasedJobs(self.database),
            workflows={(w.kind, w.version): self._mortal(w) for w in found},
            world=self.world,
            children=LocalChildren(),
            clock=self.clock,
            stopwatch=lambda: self.ahead.total_seconds(),
            owner="worker",
            lease_for=_LEASE,
            send=lambda _job_id: None,
        )

    def _mortal(self, workflow: Workflow) -> Workflow:
        return replace(workflow, steps=tuple(map(self._mortal_step, workflow.steps)))

    def _mortal_step(self, step: Step) -> Step:
        def run(context: StepContext) -> Outcome:
            outcome = step.run(context)
            if self.dies_after == step.name:
                self.dies_after = ""
                self.deaths.append(step.name)
                raise WorkerKilled
            return outcome

        return replace(step, run=run)

    def _world(self) -> World:
        runs = SshRuns(self.shell)
        return World(
            servers=self.inventory,
            vault=self.vault,
            rescue_sessions=SessionRecords(self.database),
            snapshots=self.catalogue,
            hypervisor_of=cast(Callable[[str], Any], None),
            shell=self.shell,
            runs=runs,
            polls=SshPolls(self.shell),
            tunnels=SshTunnels(self.shell),
            transfers=self.transfers,
            playbooks=FakePlaybooks({}),
            repositories=self.place.restic(),
            gateway=self.place.gateway,
            objects=self.place.objects,
            sources=Sources(apt_sources=lambda _system: ""),
            restic_path=str(restic_binary()),
            new_key_pair=new_key_pair,
            public_key=public_key_of,
        )
