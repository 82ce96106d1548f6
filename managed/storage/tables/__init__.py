"""The tables, all on one `metadata`."""

from managed.storage.tables.access import api_tokens, audit_head, audit_log, users
from managed.storage.tables.columns import metadata
from managed.storage.tables.inventory import customers, nodes, plans, sealed_secrets, servers
from managed.storage.tables.notifications import (
    notification_deliveries,
    notification_targets,
    notifications,
)
from managed.storage.tables.panel import invitations, panel_sessions
from managed.storage.tables.planning import (
    missed_windows,
    past_management,
    past_placements,
    past_windows,
    pause,
    surveys,
    windows,
)
from managed.storage.tables.self_backup import self_backup
from managed.storage.tables.tickets import deliveries, replies, request_articles, requests
from managed.storage.tables.work import (
    events,
    idempotency_keys,
    job_steps,
    jobs,
    rescue_sessions,
    snapshots,
)

__all__ = [
    "api_tokens",
    "audit_head",
    "audit_log",
    "customers",
    "deliveries",
    "events",
    "idempotency_keys",
    "invitations",
    "job_steps",
    "jobs",
    "metadata",
    "missed_windows",
    "nodes",
    "notification_deliveries",
    "notification_targets",
    "notifications",
    "panel_sessions",
    "past_management",
    "past_placements",
    "past_windows",
    "pause",
    "plans",
    "replies",
    "request_articles",
    "requests",
    "rescue_sessions",
    "sealed_secrets",
    "self_backup",
    "servers",
    "snapshots",
    "surveys",
    "users",
    "windows",
]
