"""The tables. Times are stored in UTC and always read back timezone-aware."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from managed.domain.documents import storable


class UtcDateTime(TypeDecorator[datetime]):
    """A moment. SQLite keeps no zone, so it is normalised to UTC on the way in."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times must be timezone-aware")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class StoredJson(TypeDecorator[Any]):
    """JSON, made `storable` on the way in: here passes all that servers say (results, warnings,
    errors, events), and nothing of it may keep a job from being recorded or shown.
    """

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return storable(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id(*args: Any, **options: Any) -> Column[str]:
    return Column("id", String(36), *args, primary_key=True, **options)


nodes = Table(
    "nodes",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    Column("libvirt_uri", Text, nullable=False),
    Column("storage_dir", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

customers = Table(
    "customers",
    metadata,
    _id(),
    Column("name", String(100), nullable=False, unique=True),
    Column("email", String(254), nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("only_security", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

servers = Table(
    "servers",
    metadata,
    _id(),
    Column("name", String(63), nullable=False),
    Column("origin", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("address", String(253), nullable=False),
    Column("ssh_port", Integer, nullable=False),
    Column("ssh_user", String(32), nullable=False),
    Column("host_key", Text, nullable=False),
    Column("operating_system", String(63), nullable=False),
    Column("node_id", ForeignKey("nodes.id")),
    Column("spec", StoredJson(none_as_null=True)),
    Column("repository_key_id", String(64), nullable=False, server_default=""),
    Column("checked_parts", Integer, nullable=False, server_default="0"),
    Column("customer_id", ForeignKey("customers.id")),
    Column("plan_id", ForeignKey("plans.id")),
    Column("created_at", UtcDateTime, nullable=False),
    Index(
        "uq_servers_name_present",
        "name",
        unique=True,
        sqlite_where=text("status <> 'deleted'"),
        postgresql_where=text("status <> 'deleted'"),
    ),
    Index("ix_servers_customer", "customer_id"),
)

sealed_secrets = Table(
    "sealed_secrets",
    metadata,
    Column("owner", String(36), primary_key=True),
    Column("purpose", String(63), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    Column("server_id", ForeignKey("servers.id"), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("workflow_version", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("parameters", StoredJson, nullable=False),
    Column("requested_by", String(253), nullable=False, server_default=""),
    Column("run_key", String(253)),
    Column("start_by", UtcDateTime),
    Column("holds_server", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("deadline", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime),
    Column("started_step", String(63), nullable=False, server_default=""),
    Column("step_started_at", UtcDateTime),
    Column("step_attempt", Integer, nullable=False, server_default="1"),
    Column("outage_tries", Integer, nullable=False, server_default="0"),
    Column("outage_since", UtcDateTime),
    Column("worker_deaths", Integer, nullable=False, server_default="0"),
    Column("run_numbers", StoredJson, nullable=False),
    Column("lease_owner", String(253), nullable=False, server_default=""),
    Column("lease_token", Integer, nullable=False, server_default="0"),
    Column("lease_expires_at", UtcDateTime),
    Column("child", StoredJson(none_as_null=True)),
    Column("question", StoredJson(none_as_null=True)),
    Column("question_number", Integer, nullable=False, server_default="0"),
    Column("question_until", UtcDateTime),
    Column("asked_at", UtcDateTime),
    Column("last_answer_at", UtcDateTime),
    Column("silent_seconds", Float, nullable=False, server_default="0"),
    Column("silent_ask_at", UtcDateTime),
    Column("interruptible", Boolean, nullable=False, server_default=text("true")),
    Column("answer", StoredJson(none_as_null=True)),
    Column("verdict", String(16)),
    Column("error", StoredJson(none_as_null=True)),
    Column("warnings", StoredJson, nullable=False),
    Column("cancel_requested", Text, nullable=False, server_default=""),
    Column("event_seq", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("server_id", "kind", "run_key"),
    CheckConstraint(
        "status IN ('queued','running','waiting','succeeded','failed','cancelled')", name="status"
    ),
    CheckConstraint("status <> 'running' OR lease_expires_at IS NOT NULL", name="running_leased"),
    CheckConstraint("status <> 'waiting' OR question IS NOT NULL", name="waiting_asks"),
    CheckConstraint(
        "status NOT IN ('succeeded','failed','cancelled') OR NOT holds_server", name="final_frees"
    ),
    Index(
        "uq_jobs_one_holder_per_server",
        "server_id",
        unique=True,
        sqlite_where=text("holds_server"),
        postgresql_where=text("holds_server"),
    ),
    Index(
        "uq_jobs_one_in_line_per_server",
        "server_id",
        unique=True,
        sqlite_where=text("status = 'queued' AND NOT holds_server"),
        postgresql_where=text("status = 'queued' AND NOT holds_server"),
    ),
    Index("ix_jobs_server_created", "server_id", "created_at"),
    Index(
        "ix_jobs_open",
        "status",
        sqlite_where=text("status IN ('queued','running','waiting')"),
        postgresql_where=text("status IN ('queued','running','waiting')"),
    ),
)

job_steps = Table(
    "job_steps",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("phase", String(8), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("result", StoredJson, nullable=False),
    Column("error", StoredJson(none_as_null=True)),
)

# On PostgreSQL the migration makes this table partitioned by `at`, hence the key.
events = Table(
    "events",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, primary_key=True),
    Column("server_id", String(36), nullable=False),
    Column("type", String(63), nullable=False),
    Column("data", StoredJson, nullable=False),
)

rescue_sessions = Table(
    "rescue_sessions",
    metadata,
    _id(),
    Column("server_id", ForeignKey("servers.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("host_key", Text, nullable=False),
    Column("status_before", String(16), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Index(
        "uq_rescue_sessions_one_open",
        "server_id",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("server_id", ForeignKey("servers.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("time", UtcDateTime, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("manifest_key", Text, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("layout_key", Text, nullable=False),
    Column("layout_sha256", String(64), nullable=False),
    Column("verified_at", UtcDateTime),
    Column("verification", StoredJson(none_as_null=True)),
    Column("health", StoredJson(none_as_null=True)),
    Index("ix_snapshots_server_time", "server_id", "time"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("request_digest", String(64), nullable=False),
    Column("response", StoredJson, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# ---------------------------------------------------------------- when work may start

windows = Table(
    "windows",
    metadata,
    _id(),
    Column("plan_id", ForeignKey("plans.id")),
    Column("customer_id", ForeignKey("customers.id")),
    Column("server_id", ForeignKey("servers.id")),
    Column("job_kind", String(32), nullable=False),
    Column("rule", Text, nullable=False),
    Column("zone", String(63), nullable=False),
    Column("minutes", Integer, nullable=False),
    Column("starts_on", String(10), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint(
        "CASE WHEN plan_id IS NULL THEN 0 ELSE 1 END"
        " + CASE WHEN customer_id IS NULL THEN 0 ELSE 1 END"
        " + CASE WHEN server_id IS NULL THEN 0 ELSE 1 END = 1",
        name="one_owner",
    ),
    UniqueConstraint("plan_id", "job_kind"),
    UniqueConstraint("customer_id", "job_kind"),
    UniqueConstraint("server_id", "job_kind"),
)

missed_windows = Table(
    "missed_windows",
    metadata,
    Column("server_id", ForeignKey("servers.id"), primary_key=True),
    Column("job_kind", String(32), primary_key=True),
    Column("starts_at", UtcDateTime, primary_key=True),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Index("ix_missed_windows_recorded", "recorded_at"),
)

# One row while everything that the clock would start is held back; none otherwise.
pause = Table(
    "pause",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
    Column("by", String(253), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
