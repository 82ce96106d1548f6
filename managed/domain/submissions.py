"""May this job be asked for now? Answered before anything is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from managed.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    ManagedError,
    NoBackup,
    NotFound,
    NotSupported,
)
from managed.domain.file_restores import snapshot_for_files
from managed.domain.jobs import JobKind
from managed.domain.rescue import RescueSession, rescue_limitation
from managed.domain.servers import PortForward, Server, ServerOrigin, ServerStatus
from managed.domain.snapshots import SnapshotRecord, snapshot_to_restore

SSH_PORT = 22
_NEEDS_NODE = {JobKind.POWER, JobKind.RESCUE, JobKind.UNRESCUE, JobKind.RESTORE}
_WORKS_IN_RESCUE = {JobKind.RESCUE, JobKind.UNRESCUE, JobKind.RESTORE, JobKind.DELETE}


def submission_refusal(
    server: Server, kind: JobKind, session: RescueSession | None
) -> ManagedError | None:
    """Why the server as it stands, with its open rescue session if it has one, cannot have such a
    job; or None. Whether another job holds it is not asked here: the queue knows that in its
    transaction.
    """
    limitation = rescue_limitation(server) if kind in _NEEDS_NODE else None
    if limitation is not None:
        return NotSupported(
            f"{server.name} cannot have a {kind} job: {limitation}",
            hint="Power, rescue and bare-metal restore need a server on one of our nodes.",
            server_id=server.server_id,
        )
    if kind is JobKind.ENROL and server.origin is ServerOrigin.CREATED:
        return NotSupported(
            f"{server.name} was created here; there is nothing to enrol",
            server_id=server.server_id,
        )
    return _refusal_by_state(server, kind, session)


def _refusal_by_state(
    server: Server, kind: JobKind, session: RescueSession | None
) -> ManagedError | None:
    # The session that installs a new server is no rescue: the server is as new as before it.
    status = session.status_before if session else server.status
    if status is ServerStatus.NEW and kind not in (JobKind.ENROL, JobKind.DELETE):
        enrolled = server.origin is ServerOrigin.ENROLLED
        hint = "Ask for a job of the kind enrol first." if enrolled else "Wait for its create job."
        return Conflict(f"{server.name} is not under management yet", hint=hint, status="new")
    if session is not None and kind not in _WORKS_IN_RESCUE:
        return Conflict(
            f"{server.name} is in a rescue session",
            hint="End it with a job of the kind unrescue first.",
            session_id=session.session_id,
        )
    if kind is JobKind.RESTORE_FILES and status is ServerStatus.BROKEN:
        return Conflict(
            f"{server.name} is broken",
            hint="Files are restored to a server that runs; ask for a job of the kind restore.",
            status=status.value,
        )
    if kind is JobKind.UNRESCUE and session is None:
        return Conflict(f"{server.name} is in no rescue session", status=server.status.value)
    return None


def restore_refusal(
    server: Server,
    records: Sequence[SnapshotRecord],
    snapshot_id: str | None,
    as_of: datetime | None,
    kind: JobKind = JobKind.RESTORE,
) -> ManagedError | None:
    """Why none of the server's backups answers the request for a restore of this kind, or None."""
    if snapshot_id is not None:
        named = [record for record in records if record.snapshot_id == snapshot_id]
        if not named:
            return NotFound(
                f"{server.name} has no snapshot {snapshot_id}",
                hint="List the server's snapshots.",
                snapshot_id=snapshot_id,
            )
        records = named
        if kind is JobKind.RESTORE and named[0].paths:
            return NotSupported(
                f"snapshot {snapshot_id} holds {', '.join(named[0].paths)} and no whole server",
                hint="It was taken before these were restored in place; a job of the kind"
                " restore-files brings them back.",
                snapshot_id=snapshot_id,
            )
    found = (
        snapshot_to_restore(records, as_of)
        if kind is JobKind.RESTORE
        else snapshot_for_files(records, snapshot_id, as_of)
    )
    if found is not None:
        return None
    when = f" from {as_of:%F %T %Z} or before" if as_of else ""
    return NoBackup(
        f"{server.name} has no verified backup{when}",
        hint="Ask for a job of the kind backup, or name another time."
        if records
        else "Ask for a job of the kind backup first.",
        server_id=server.server_id,
        snapshots=len(records),
    )


def chosen_forwards(
    wanted: Sequence[tuple[int, int | None]], used: set[int], free: Iterable[int]
) -> tuple[PortForward, ...]:
    """The port forwards of a new server: `wanted` pairs of guest port and host port (None: choose
    from `free`), with SSH always among them. InvalidInput for a port twice, AlreadyExists for a
    host port in `used`.
    """
    pairs = [*wanted]
    if all(guest != SSH_PORT for guest, _ in pairs):
        pairs.insert(0, (SSH_PORT, None))
    named = [host for _, host in pairs if host is not None]
    for ports in (named, [guest for guest, _ in pairs]):
        if len(set(ports)) != len(ports):
            raise InvalidInput("a port is forwarded twice", field="forwards")
    taken = sorted(set(named) & used)
    if taken:
        raise AlreadyExists(
            f"port {taken[0]} of the node leads to another server",
            hint="Leave host_port out; a free one is then chosen.",
            field="forwards",
        )
    offered = (port for port in free if port not in used and port not in named)
    return tuple(
        PortForward(host_port=_next(offered) if host is None else host, guest_port=guest)
        for guest, host in pairs
    )


def _next(ports: Iterable[int]) -> int:
    for port in ports:
        return port
    raise Conflict("the node has no free port left for this server")


def ssh_host_port(forwards: Sequence[PortForward]) -> int:
    return next(f.host_port for f in forwards if f.guest_port == SSH_PORT)


def mac_address(random_bytes: bytes) -> str:
    """A MAC address with QEMU's prefix; three random bytes make the rest."""
    return ":".join(["52", "54", "00", *(f"{byte:02x}" for byte in random_bytes[:3])])
