"""The ports through which workflows reach the world.

Each Protocol's docstrings are its contract; `tests/contract/` runs one suite per port against the
fake and the real driver. Everything raises `managed.domain.errors` and nothing else; every effect
is idempotent unless its docstring says otherwise; all durations are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.errors import Json
from managed.domain.events import NewEvent
from managed.domain.jobs import Job, JobStatus, StepResult
from managed.domain.questions import Question
from managed.domain.rescue import RescueSession
from managed.domain.runs import RunReport, RunRequest
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.servers import Node, PowerState, Server, ServerSpec, ServerStatus
from managed.domain.snapshots import (
    Check,
    RepositoryAddress,
    Snapshot,
    SnapshotFile,
    SnapshotRecord,
)

Emit = Callable[[str, Mapping[str, Json]], None]
"""Takes an event's static name and its data; data never holds a secret."""

RegisterChild = Callable[[int], None]
"""Takes the process group that begins to work for a step, so that whoever takes the job over can
end it. It may raise, as when the lease is lost: then the group is ended at once.
"""


Clock = Callable[[], datetime]
Stopwatch = Callable[[], float]
"""Seconds since some moment. They run on evenly, whatever is done to the clock."""
"""The present moment, timezone-aware."""


# ---------------------------------------------------------------- jobs


class ChildProcesses(Protocol):
    """How the engine knows and ends the process groups that work for a step."""

    def describe(self, group: int) -> Mapping[str, Json]:
        """What identifies the group for a successor (host, pid, start time)."""
        ...

    def end(self, child: Mapping[str, Json]) -> bool:
        """Kill the group if it is of this host and still the same; was there one to kill?"""
        ...


class JobStore(Protocol):
    """What the engine does with a job that it holds a lease on.

    `job` always carries the lease; when another worker has taken over, every method raises
    LeaseLost and writes nothing.
    """

    def claim(
        self, job_id: str, owner: str, now: datetime, lease_for: timedelta
    ) -> tuple[Job, Mapping[str, Json] | None] | None:
        """Take the job if it is free; with it the child process that an earlier holder left."""
        ...

    def renew(self, job: Job, now: datetime, lease_for: timedelta) -> None: ...

    def release(self, job: Job, not_before: datetime | None = None) -> None:
        """Give the job back as it is, for any worker, but not before that time."""
        ...

    def reread(self, job: Job) -> Job: ...

    def start_step(self, job: Job, step: str, now: datetime) -> Job: ...

    def record_child(self, job: Job, child: Mapping[str, Json]) -> None: ...

    def record_step(self, job: Job, result: StepResult, warnings: Sequence[str] = ()) -> Job: ...

    def retry_step(self, job: Job) -> None:
        """Let go of the job, as it is to be at its next try, until its `next_attempt_at`."""
        ...

    def park(
        self, job: Job, question: Question, until: datetime, *, interruptible: bool, now: datetime
    ) -> None: ...

    def begin_undo(
        self,
        job: Job,
        verdict: JobStatus,
        error: Mapping[str, Json],
        cut_off: StepResult | None,
        now: datetime,
    ) -> Job: ...

    def finish(self, job: Job, status: JobStatus, now: datetime) -> str | None:
        """End the job; returns the id of the job that gets its server next, if one waits."""
        ...

    def append_events(self, job: Job, new: Sequence[NewEvent]) -> None: ...


# ---------------------------------------------------------------- what is known of servers


class Servers(Protocol):
    """Servers and nodes as the database knows them."""

    def get(self, server_id: str) -> Server:
        """NotFound for unknown and deleted servers."""
        ...

    def node(self, node_id: str) -> Node: ...

    def set_status(self, server_id: str, status: ServerStatus) -> None: ...

    def pin_host_key(self, server_id: str, host_key: str, *, replacing: str) -> None:
        """Pin a key in place of `replacing` (empty: none yet). HostKeyChanged when another key
        is pinned than the two; pinning the same again is fine.
        """
        ...

    def set_repository_key(self, server_id: str, key_id: str) -> None: ...

    def repository_key(self, server_id: str) -> str:
        """The name of the provider's key in the server's repository; empty: no repository yet."""
        ...

    def part_to_check(self, server_id: str, parts: int) -> int:
        """Which part (1 to `parts`) of the repository's data is due."""
        ...

    def part_checked(self, server_id: str, part: int, parts: int) -> None:
        """That part is sound: the next one is due. Nothing changes if it was not the one due."""
        ...


class Vault(Protocol):
    """Secrets, sealed in the database. An owner is a server or a rescue session."""

    def keep(self, owner: str, purpose: SecretPurpose, secret: Secret) -> None:
        """Store or replace."""
        ...

    def keep_once(self, owner: str, purpose: SecretPurpose, secret: Secret) -> Secret:
        """Store unless there is one; returns the one that counts. For secrets made on demand."""
        ...

    def secret(self, owner: str, purpose: SecretPurpose) -> Secret:
        """NotFound when there is none; SecretUnreadable with a wrong master key."""
        ...

    def forget(self, owner: str) -> None:
        """Remove every secret of this owner; none is fine."""
        ...


class RescueSessions(Protocol):
    def open(self, session: RescueSession) -> RescueSession:
        """Record a session before it boots; the server's open one is returned if there is one."""
        ...

    def current(self, server_id: str) -> RescueSession | None: ...

    def keep_until(self, session_id: str, expires_at: datetime) -> None:
        """From now on it ends at that time, also when it was to end with its job."""
        ...

    def end(self, session_id: str, now: datetime) -> None:
        """Ended is fine."""
        ...


class Snapshots(Protocol):
    """The catalogue of backups. A backup is good when verified, not before."""

    def add(self, record: SnapshotRecord) -> None:
        """The same record again is fine; EvidenceMissing when the snapshot is on record as another
        job's, or with other evidence.
        """
        ...

    def mark_verified(
        self, snapshot_id: str, evidence: Mapping[str, Json], now: datetime
    ) -> None: ...

    def get(self, snapshot_id: str) -> SnapshotRecord: ...

    def of_server(self, server_id: str) -> Sequence[SnapshotRecord]:
        """Newest first."""
        ...


# ---------------------------------------------------------------- hypervisor


@dataclass(frozen=True)
class HypervisorCapabilities:
    """What this driver on this node can do, stated and not found out by failing.

    `accelerated` is True where guests really boot under KVM; timeouts are multiplied by
    `time_scale` (1.0 with KVM, more without). `kernel_options` are what the kernels of servers that
    are installed on this node should be given.
    """

    accelerated: bool
    time_scale: float
    live_restore_points: bool
    kernel_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class RescueBoot:
    """A temporary boot of the rescue image. `configuration` is the content of the small
    configuration disk: file name to content (the session's host key, authorized keys, network).
    `image` names an operating system image attached read-only with the serial `managed-image`.
    """

    session_id: str
    memory_mib: int
    configuration: Mapping[str, Secret]
    image: str | None = None


@dataclass(frozen=True)
class RestorePoint:
    name: str
    created_at: datetime


@dataclass(frozen=True)
class ServerStats:
    """Counters since power-on, for metering."""

    cpu_seconds: float
    memory_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


class Hypervisor(Protocol):
    """One node. Servers are named by their `server_id` only."""

    def capabilities(self) -> HypervisorCapabilities:
        """May take a bounded boot the first time; the answer is remembered per node."""
        ...

    def create_server(self, spec: ServerSpec) -> None:
        """Make the empty disk and the persistent definition, powered off.

        Again with the same spec changes nothing; raises AlreadyExists when the server exists with
        another spec. A failure half-way leaves nothing behind.
        """
        ...

    def destroy_server(self, server_id: str) -> None:
        """Power off; remove definition, disk, restore points, rescue leftovers. Absent is fine."""
        ...

    def power_state(self, server_id: str) -> PowerState:
        """RESCUE while a rescue session runs; ABSENT when there is no such server."""
        ...

    def start(self, server_id: str) -> None:
        """Boot the server from its own disk; running is fine. Conflict while in rescue."""
        ...

    def shut_down(self, server_id: str) -> None:
        """Ask the guest to power off (ACPI); returns at once; stopped is fine."""
        ...

    def power_off(self, server_id: str) -> None:
        """Pull the plug; stopped is fine. Conflict while in rescue."""
        ...

    def reset(self, server_id: str) -> None:
        """Press the reset button. Conflict when stopped or in rescue."""
        ...

    def boot_rescue_image(self, server_id: str, rescue: RescueBoot) -> None:
        """Power the server off and start the transient rescue domain over its own definition.

        The same `session_id` already running is fine; another session is ended first.
        """
        ...

    def end_rescue(self, server_id: str, session_id: str) -> None:
        """End this rescue session, if it runs, and remove its configuration disk; that leaves the
        server stopped. Another session of the server, and a server without one, run on.
        """
        ...

    def rescue_sessions(self) -> Mapping[str, str]:
        """server_id to session_id of every rescue session that runs on this node."""
        ...

    def create_restore_point(self, server_id: str, name: str) -> None:
        """Keep the disk's present state under this name; the same name again is fine.

        Works on running servers when `live_restore_points`, else raises NotSupported.
        """
        ...

    def revert_to_restore_point(self, server_id: str, name: str) -> None:
        """Put the disk back to that state; the server is powered off first. Keeps the point."""
        ...

    def delete_restore_point(self, server_id: str, name: str) -> None:
        """Forget the point and keep the disk's present state; absent is fine."""
        ...

    def restore_points(self, server_id: str) -> Sequence[RestorePoint]: ...

    def stats(self, server_id: str) -> ServerStats:
        """Conflict when the server is stopped."""
        ...

    def console_tail(self, server_id: str, size: int = 4096) -> str:
        """The last `size` bytes that the serial console printed, decoded with replacement."""
        ...


# ---------------------------------------------------------------- SSH


class RemoteShell(Protocol):
    """Commands over SSH with pinned host keys; nothing is ever trusted on first use."""

    def run(
        self,
        endpoint: Endpoint,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> CommandResult:
        """Run an argv (quoted for the remote shell) and wait. A non-zero exit is a result.

        Raises ServerUnreachable (no connection, timeout), HostKeyChanged, LoginRefused.
        """
        ...

    def read_file(
        self, endpoint: Endpoint, path: str, *, limit: int = 2**26, timeout: float = 600
    ) -> bytes:
        """The content of a remote file; NotFound when there is none, EvidenceMissing when it has
        more than `limit` bytes (the server decides what comes, and we keep no more than that).
        """
        ...

    def write_file(self, endpoint: Endpoint, path: str, content: bytes, mode: int) -> None:
        """Replace a remote file in one step (temporary name, mode first, rename)."""
        ...

    def host_key(self, address: str, port: int, *, timeout: float = 10) -> str:
        """The host key line (ed25519 if offered) that the server shows, without trusting it."""
        ...

    def boot_id(self, endpoint: Endpoint) -> str:
        """/proc/sys/kernel/random/boot_id of the running system; the cheapest proof of a login."""
        ...

    def fresh_login(self, endpoint: Endpoint, *, timeout: float = 60) -> str:
        """As `boot_id`, over a new connection that is closed after: proof that one can get in now,
        which a connection held since before a change is not.
        """
        ...


@dataclass(frozen=True)
class RunDelivery:
    """What somebody else (a playbook) needs to start a run: the runner's path on the server and
    its source, and the request as the runner reads it from its standard input.
    """

    runner_path: str
    runner_source: str
    request: str


class DetachedRuns(Protocol):
    """Long work on servers; see managed.domain.runs."""

    def delivery(self, request: RunRequest) -> RunDelivery:
        """For a start that does not go through `start`; InvalidInput for requests with secrets."""
        ...

    def start(self, endpoint: Endpoint, request: RunRequest) -> None:
        """Claim the run and start it. A run id that is claimed already is left as it is."""
        ...

    def look(self, endpoint: Endpoint, run_id: str, offset: int) -> RunReport:
        """The run's state and what it printed from `offset` on (64 KiB at most per look)."""
        ...

    def stop(self, endpoint: Endpoint, run_id: str) -> None:
        """End the run's processes (TERM, then KILL); ended is fine. Its record stays."""
        ...

    def forget(self, endpoint: Endpoint, run_id: str) -> None:
        """Remove the record of an ended run; absent is fine; Conflict while it runs."""
        ...


class Polls(Protocol):
    """Short questions for many servers at once, as coroutines of the SSH driver's event loop.

    A server that does not answer within `timeout` raises ServerUnreachable and delays no other.
    """

    async def look(
        self, endpoint: Endpoint, run_id: str, offset: int, *, timeout: float
    ) -> RunReport:
        """As DetachedRuns.look."""
        ...

    async def boot_id(self, endpoint: Endpoint, *, timeout: float) -> str:
        """As RemoteShell.boot_id."""
        ...


class Tunnels(Protocol):
    def reverse_socket(
        self, endpoint: Endpoint, remote_socket: str, local_socket: str
    ) -> AbstractContextManager[TunnelHandle]:
        """Forward a Unix socket on the server back to one here, through OpenSSH.

        A stale socket at `remote_socket` is removed first; the remote socket is only root's.
        The ssh process dies with the one that opened it.
        """
        ...


class TunnelHandle(Protocol):
    @property
    def is_open(self) -> bool: ...


# ---------------------------------------------------------------- Ansible


@dataclass(frozen=True)
class PlaybookReport:
    """How a playbook ended on its one server. `facts` is what it set with set_stats."""

    changed: int
    failed_tasks: tuple[str, ...]
    facts: Mapping[str, Json]


class Playbooks(Protocol):
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
        """Run `playbooks/<playbook>.yml` on one server and wait.

        Output goes to `emit` as it comes ("playbook_task", "playbook_output"). The process group
        of ansible-playbook is given to `register_child` before it works, and dies with this
        process. Raises PlaybookFailed (failed tasks in details), ServerUnreachable,
        HostKeyChanged, LoginRefused, and UnknownOutcome when the time is over (all of it is ended
        then). Secrets travel in files of a private directory that is removed after. What `emit`
        and `register_child` raise ends the run and comes through.
        """
        ...


# ---------------------------------------------------------------- backups


class BackupRepositories(Protocol):
    """restic on the provider's side: directly on the bucket, never through the gateway.

    The process group that works for a method is given to its `register_child`, and dies with this
    process.
    """

    def create(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> str:
        """Make the repository with its first key; existing with this password is fine.

        Returns the key's id, to be kept as `key_id`. Call it before the server is let in at the
        gateway: the id is trusted because nobody else could have put a key there. RepositoryLocked
        while somebody else may still be making it.
        """
        ...

    def snapshots(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> Sequence[Snapshot]:
        """All snapshots, oldest first. NoBackup when the repository does not exist."""
        ...

    def files(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        register_child: RegisterChild | None = None,
    ) -> AbstractContextManager[Iterator[SnapshotFile]]:
        """Every path of a snapshot with its metadata, read as it is asked for: in tree order of
        the names' bytes, the paths as `manifests.listed_path` says. It may be left before its end.
        """
        ...

    def file_digest(
        self,
        repository: RepositoryAddress,
        snapshot_id: str,
        path: str,
        largest: int,
        register_child: RegisterChild | None = None,
    ) -> str:
        """The SHA-256 (hexadecimal) of one file's content. NotFound when the snapshot does not
        hold it, EvidenceMissing as soon as it is seen to have more than `largest` bytes.
        """
        ...

    def check(
        self,
        repository: RepositoryAddress,
        part: int,
        parts: int,
        emit: Emit,
        register_child: RegisterChild | None = None,
    ) -> Check:
        """Check structure and the `part`-th (from 1) of `parts` equal parts of all data.

        What is wrong with the repository is in the answer, not raised.
        """
        ...

    def quarantine(self, repository: RepositoryAddress) -> Sequence[str]:
        """Move what does not belong (objects that do not decrypt with the repository's own key)
        out of the repository to the quarantine prefix; returns the names moved, sorted.

        To be called before the other methods whenever the server may be hostile, and while no
        backup of ours runs. NoBackup when the repository does not exist. No process works for it:
        it may be done by two at once.
        """
        ...

    def unlock(
        self, repository: RepositoryAddress, register_child: RegisterChild | None = None
    ) -> None:
        """Remove stale locks."""
        ...


class Gateway(Protocol):
    """The append-only way into the bucket that servers get."""

    def admit(self, account: str, password: Secret) -> None:
        """Let this account in to its own repository; replaces an earlier password."""
        ...

    def dismiss(self, account: str) -> None:
        """Let it in no more; unknown is fine."""
        ...

    def socket(self) -> str:
        """Path of the gateway's Unix socket here, to be forwarded. GatewayUnavailable if down."""
        ...


class ObjectStore(Protocol):
    """A bucket. Keys are relative to the bucket; content is bytes."""

    def put(self, key: str, content: bytes) -> None: ...

    def get(self, key: str) -> bytes:
        """NotFound when there is no such object."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Absent is fine."""
        ...

    def move(self, key: str, new_key: str) -> None:
        """Copy, then delete; NotFound when there is no such object."""
        ...

    def keys(self, prefix: str) -> Sequence[str]:
        """Every key that begins with the prefix, sorted."""
        ...

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """The same keys with their objects' sizes in bytes."""
        ...
