"""Jobs with their steps and events, and what they leave: rescue sessions and snapshots."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from managed.storage.tables.columns import StoredJson, UtcDateTime, id_column, metadata

jobs = Table(
    "jobs",
    metadata,
    id_column(),
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
    Index("ix_jobs_server_created", "server_id", "created_at", "id"),
    Index("ix_jobs_created", "created_at", "id"),
    Index("ix_jobs_kind_created", "kind", "created_at", "id"),
    Index("ix_jobs_status_created", "status", "created_at", "id"),
    Index("ix_jobs_status_finished", "status", "finished_at"),
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
    id_column(),
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
    Column("paths", StoredJson(none_as_null=True)),
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
