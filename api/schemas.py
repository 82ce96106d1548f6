"""What answers look like: views of the domain's values, with examples for the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api import examples
from api.views import Document, View, shown_as
from managed.domain.events import Event
from managed.domain.jobs import Job, JobKind, JobStatus, StepResult, StepStatus
from managed.domain.rescue import RescueSession
from managed.domain.servers import Node, Server, ServerOrigin, ServerStatus
from managed.domain.snapshots import SnapshotRecord


class Problem(View):
    """RFC 9457. `code` is stable, `hint` says what to do, `data` holds the particulars."""

    model_config = shown_as(examples.PROBLEM)
    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str | None = None
    data: Document | None = None


class NodeView(View):
    model_config = shown_as(examples.NODE)
    id: str
    name: str
    libvirt_uri: str
    storage_dir: str

    @classmethod
    def of(cls, node: Node) -> NodeView:
        return cls(
            id=node.node_id,
            name=node.name,
            libvirt_uri=node.libvirt_uri,
            storage_dir=node.storage_dir,
        )


class ForwardView(View):
    model_config = shown_as(examples.FORWARD)
    host_port: int
    guest_port: int


class ServerView(View):
    """`host_key` is the pinned SSH host key; empty until the installer has made it."""

    model_config = shown_as(examples.SERVER)
    id: str
    name: str
    origin: ServerOrigin
    status: ServerStatus
    address: str
    ssh_port: int
    ssh_user: str
    host_key: str
    operating_system: str
    node_id: str | None
    vcpus: int | None
    memory_mib: int | None
    disk_gib: int | None
    disk_serial: str | None
    bridge: str | None
    forwards: list[ForwardView]
    created_at: datetime | None
    customer_id: str | None
    plan_id: str | None

    @classmethod
    def of(cls, server: Server) -> ServerView:
        spec = server.spec
        forwards = spec.forwards if spec else ()
        return cls(
            id=server.server_id,
            name=server.name,
            origin=server.origin,
            status=server.status,
            address=server.address,
            ssh_port=server.ssh_port,
            ssh_user=server.ssh_user,
            host_key=server.host_key,
            operating_system=server.operating_system,
            node_id=server.node_id,
            vcpus=spec.vcpus if spec else None,
            memory_mib=spec.memory_mib if spec else None,
            disk_gib=spec.disk_gib if spec else None,
            disk_serial=spec.disk_serial if spec else None,
            bridge=spec.bridge if spec else None,
            forwards=[
                ForwardView(host_port=f.host_port, guest_port=f.guest_port) for f in forwards
            ],
            created_at=server.created_at,
            customer_id=server.customer_id,
            plan_id=server.plan_id,
        )


class RescueSessionView(View):
    """An open rescue session: SSH at the server's address shows this host key. It ends by itself
    at `expires_at`, or with its job when that is null.
    """

    model_config = shown_as(examples.RESCUE_SESSION)
    id: str
    job_id: str
    host_key: str
    started_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, session: RescueSession) -> RescueSessionView:
        return cls(
            id=session.session_id,
            job_id=session.job_id,
            host_key=session.host_key,
            started_at=session.started_at,
            expires_at=session.expires_at,
        )


class ServerDetailView(ServerView):
    model_config = shown_as(examples.SERVER_DETAIL)
    rescue_session: RescueSessionView | None

    @classmethod
    def with_session(cls, server: Server, session: RescueSession | None) -> ServerDetailView:
        view = RescueSessionView.of(session) if session else None
        return cls(**dict(ServerView.of(server)), rescue_session=view)


class StepView(View):
    model_config = shown_as(examples.STEP)
    name: str
    status: StepStatus
    attempt: int
    started_at: datetime
    finished_at: datetime
    result: Document
    error: Document | None

    @classmethod
    def of(cls, step: StepResult) -> StepView:
        return cls(
            name=step.name,
            status=step.status,
            attempt=step.attempt,
            started_at=step.started_at,
            finished_at=step.finished_at,
            result=dict(step.result),
            error=dict(step.error) if step.error else None,
        )


class JobView(View):
    """A job. `present_step` is what it is at; `waiting_for` and `question` say what it asks while
    it waits; `ending` is set while what was done is taken back, and tells how the job will end.
    """

    model_config = shown_as(examples.JOB)
    id: str
    server_id: str
    kind: JobKind
    status: JobStatus
    parameters: Document
    requested_by: str
    run_key: str | None
    start_by: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline: datetime
    present_step: str
    attempt: int
    waiting_for: str | None
    question: Document | None
    question_until: datetime | None
    ending: JobStatus | None
    cancel_requested: str
    warnings: list[str]
    error: Document | None

    @classmethod
    def of(cls, job: Job) -> JobView:
        return cls(**_job_fields(job))


class JobDetailView(JobView):
    """A job with what it has done so far."""

    model_config = shown_as(examples.JOB_DETAIL)
    steps: list[StepView]

    @classmethod
    def of(cls, job: Job) -> JobDetailView:
        return cls(**_job_fields(job), steps=[StepView.of(step) for step in job.steps])


def _job_fields(job: Job) -> dict[str, Any]:
    waits = job.status is JobStatus.WAITING
    return {
        "id": job.job_id,
        "server_id": job.server_id,
        "kind": job.kind,
        "status": job.status,
        "parameters": dict(job.parameters),
        "requested_by": job.requested_by,
        "run_key": job.run_key,
        "start_by": job.start_by,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "deadline": job.deadline,
        "present_step": job.started_step,
        "attempt": job.step_attempt,
        "waiting_for": str(job.question["kind"]) if waits and job.question else None,
        "question": dict(job.question) if waits and job.question else None,
        "question_until": job.question_until if waits else None,
        "ending": job.verdict,
        "cancel_requested": job.cancel_requested,
        "warnings": list(job.warnings),
        "error": dict(job.error) if job.error else None,
    }


class SubmittedServerView(View):
    """A server and the job that works on it."""

    model_config = shown_as(examples.SUBMITTED_SERVER)
    server: ServerView
    job: JobDetailView


class EnrolledServerView(View):
    """Put `authorized_keys_line` into the login's ~/.ssh/authorized_keys on the server, then ask
    for a job of the kind `enrol`.
    """

    model_config = shown_as(examples.ENROLLED_SERVER)
    server: ServerView
    public_key: str
    authorized_keys_line: str
    next: str


class HostKeyView(View):
    """What the server shows now, never trusted by this. Compare the fingerprint over another
    channel before you pin it.
    """

    model_config = shown_as(examples.SHOWN_HOST_KEY)
    address: str
    port: int
    host_key: str
    trusted: Literal[False] = False
    fingerprint: str


class SnapshotView(View):
    """A backup; without `verified_at` nobody has verified it and it is not restored from. With
    `paths` it holds these alone, as they were before they were restored in place.
    """

    model_config = shown_as(examples.SNAPSHOT)
    id: str
    server_id: str
    job_id: str
    time: datetime
    files: int
    size: int = Field(description="Bytes.")
    paths: list[str]
    verified_at: datetime | None
    verification: Document | None

    @classmethod
    def of(cls, record: SnapshotRecord) -> SnapshotView:
        return cls(
            id=record.snapshot_id,
            server_id=record.server_id,
            job_id=record.job_id,
            time=record.time,
            files=record.files,
            size=record.size,
            paths=list(record.paths),
            verified_at=record.verified_at,
            verification=dict(record.verification) if record.verification else None,
        )


class EventView(View):
    model_config = shown_as(examples.EVENT)
    seq: int
    at: datetime
    type: str
    data: Document

    @classmethod
    def of(cls, event: Event) -> EventView:
        return cls(seq=event.seq, at=event.at, type=event.type, data=dict(event.data))


class EventsView(View):
    """Events after the one asked for. When `is_complete` no more will follow."""

    model_config = shown_as(examples.EVENTS)
    items: list[EventView]
    is_complete: bool


class HealthView(View):
    model_config = shown_as(examples.HEALTH)
    status: str
