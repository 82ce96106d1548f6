"""The tables, all on one `metadata`."""

from managed.storage.tables.columns import metadata
from managed.storage.tables.inventory import customers, nodes, plans, sealed_secrets, servers
from managed.storage.tables.planning import missed_windows, pause, windows
from managed.storage.tables.self_backup import self_backup
from managed.storage.tables.work import (
    events,
    idempotency_keys,
    job_steps,
    jobs,
    rescue_sessions,
    snapshots,
)

__all__ = [
    "customers",
    "events",
    "idempotency_keys",
    "job_steps",
    "jobs",
    "metadata",
    "missed_windows",
    "nodes",
    "pause",
    "plans",
    "rescue_sessions",
    "sealed_secrets",
    "self_backup",
    "servers",
    "snapshots",
    "windows",
]
