"""Rows to values: the one place that knows how a job, step, server or snapshot lies in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from managed.domain.jobs import Job, JobKind, JobStatus, Lease, StepResult, StepStatus
from managed.domain.servers import (
    Node,
    PortForward,
    Server,
    ServerOrigin,
    ServerSpec,
    ServerStatus,
)
from managed.storage.tables import job_steps

UNDO = "undo"
DO = "do"


def job_from_row(row: Row[Any], steps: Sequence[StepResult] = ()) -> Job:
    lease = None
    if row.lease_expires_at is not None:
        lease = Lease(row.lease_owner, row.lease_token, row.lease_expires_at)
    return Job(
        job_id=row.id,
        server_id=row.server_id,
        kind=JobKind(row.kind),
        workflow_version=row.workflow_version,
        status=JobStatus(row.status),
        parameters=row.parameters,
        created_at=row.created_at,
        deadline=row.deadline,
        started_step=row.started_step,
        step_started_at=row.step_started_at,
        step_attempt=row.step_attempt,
        outage_tries=row.outage_tries,
        outage_since=row.outage_since,
        worker_deaths=row.worker_deaths,
        run_numbers=row.run_numbers,
        next_attempt_at=row.next_attempt_at,
        lease=lease,
        question=row.question,
        question_number=row.question_number,
        question_until=row.question_until,
        answer=row.answer,
        verdict=JobStatus(row.verdict) if row.verdict else None,
        error=row.error,
        warnings=tuple(row.warnings),
        cancel_requested=row.cancel_requested,
        run_key=row.run_key,
        start_by=row.start_by,
        holds_server=row.holds_server,
        started_at=row.started_at,
        finished_at=row.finished_at,
        requested_by=row.requested_by,
        steps=tuple(steps),
    )


def steps_of(connection: Connection, job_id: str) -> tuple[StepResult, ...]:
    query = select(job_steps).where(job_steps.c.job_id == job_id).order_by(job_steps.c.position)
    return tuple(
        StepResult(
            name=row.name,
            status=StepStatus(row.status),
            attempt=row.attempt,
            started_at=row.started_at,
            finished_at=row.finished_at,
            result=row.result,
            error=row.error,
        )
        for row in connection.execute(query)
    )


def server_from_row(row: Row[Any]) -> Server:
    return Server(
        server_id=row.id,
        name=row.name,
        origin=ServerOrigin(row.origin),
        status=ServerStatus(row.status),
        address=row.address,
        ssh_port=row.ssh_port,
        ssh_user=row.ssh_user,
        host_key=row.host_key,
        operating_system=row.operating_system,
        node_id=row.node_id,
        spec=spec_from_json(row.spec) if row.spec else None,
        created_at=row.created_at,
        customer_id=row.customer_id,
        plan_id=row.plan_id,
    )


def spec_from_json(document: dict[str, Any]) -> ServerSpec:
    forwards = tuple(PortForward(**forward) for forward in document["forwards"])
    return ServerSpec(**{**document, "forwards": forwards})


def node_from_row(row: Row[Any]) -> Node:
    return Node(row.id, row.name, row.libvirt_uri, row.storage_dir)
