"""Incidents become notifications in the transaction in which they happen: what has yet to be told
need never be looked for among millions of jobs, and nothing is told that was rolled back.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from sqlalchemy import Connection, insert, or_, select

from managed.domain.jobs import Job
from managed.domain.notifications import Incident, Target
from managed.storage.notification_targets import target_from_row
from managed.storage.tables import events, notification_targets, notifications, servers

_AT_ONCE = 500


def note(connection: Connection, incidents: Iterable[Incident]) -> None:
    """Note for every target which of these it is to be told of; nothing where nobody listens."""
    remaining = iter(incidents)
    while part := list(islice(remaining, _AT_ONCE)):
        _note(connection, part)


def why_given_up(connection: Connection, job: Job) -> str:
    """What the job's log says of why its last step was not tried once more, or ""."""
    query = (
        select(events.c.data)
        .where(
            events.c.job_id == job.job_id,
            events.c.at >= job.created_at,
            events.c.type == "step_failed",
        )
        .order_by(events.c.seq.desc())
        .limit(1)
    )
    data = connection.execute(query).scalar_one_or_none()
    return str(data.get("gave_up", "")) if data else ""


def _note(connection: Connection, incidents: Sequence[Incident]) -> None:
    owners = _owners(connection, {incident.server_id for incident in incidents})
    targets = _targets(connection, {owner for owner in owners.values() if owner is not None})
    rows = [
        {
            "id": str(uuid.uuid4()),
            "target_id": target.target_id,
            "occasion": incident.occasion.value,
            "server_id": incident.server_id,
            "subject_id": incident.subject_id,
            "at": incident.at,
            "facts": dict(incident.facts),
        }
        for incident in incidents
        for target in targets
        if target.hears_of(incident.occasion, owners[incident.server_id])
    ]
    if rows:
        connection.execute(insert(notifications), rows)


def _owners(connection: Connection, server_ids: set[str]) -> Mapping[str, str | None]:
    query = select(servers.c.id, servers.c.customer_id).where(servers.c.id.in_(sorted(server_ids)))
    return {row.id: row.customer_id for row in connection.execute(query)}


def _targets(connection: Connection, customer_ids: set[str]) -> Sequence[Target]:
    """The staff's and these customers'. Until the commit none of them can be removed: that must not
    keep a job from ending.
    """
    customer_id = notification_targets.c.customer_id
    query = (
        select(notification_targets)
        .where(or_(customer_id.is_(None), customer_id.in_(sorted(customer_ids))))
        .with_for_update(read=True, key_share=True)
    )
    return [target_from_row(row) for row in connection.execute(query)]
