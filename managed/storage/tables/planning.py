"""When work may start by itself, what was found to do then, and when nothing was started."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from managed.storage.tables.columns import StoredJson, UtcDateTime, id_column, metadata

windows = Table(
    "windows",
    metadata,
    id_column(),
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

# How windows were until they were changed or removed, where servers were until they were placed
# elsewhere, and when plans were managed ones that are not: for as long as openings of that time may
# have to be judged. What these name may be gone.
past_windows = Table(
    "past_windows",
    metadata,
    Column("window_id", String(36), primary_key=True),
    Column("created_at", UtcDateTime, primary_key=True),
    Column("until", UtcDateTime, nullable=False),
    Column("plan_id", String(36)),
    Column("customer_id", String(36)),
    Column("server_id", String(36)),
    Column("job_kind", String(32), nullable=False),
    Column("rule", Text, nullable=False),
    Column("zone", String(63), nullable=False),
    Column("minutes", Integer, nullable=False),
    Column("starts_on", String(10), nullable=False),
)

past_placements = Table(
    "past_placements",
    metadata,
    Column("server_id", String(36), primary_key=True),
    Column("customer_id", String(36)),
    Column("plan_id", String(36), nullable=False),
    Column("since", UtcDateTime, primary_key=True),
    Column("until", UtcDateTime, nullable=False),
)

past_management = Table(
    "past_management",
    metadata,
    Column("plan_id", String(36), primary_key=True),
    Column("since", UtcDateTime, primary_key=True),
    Column("until", UtcDateTime, nullable=False),
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
    Index("ix_missed_windows_opening", "job_kind", "starts_at", "server_id"),
)

surveys = Table(
    "surveys",
    metadata,
    Column("server_id", ForeignKey("servers.id"), primary_key=True),
    Column("job_kind", String(32), primary_key=True),
    Column("starts_at", UtcDateTime, primary_key=True),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("found", StoredJson, nullable=False),
    Column("detail", Text, nullable=False),
    CheckConstraint("outcome IN ('nothing-to-do','work','unknown')", name="outcome"),
    Index(
        "ix_surveys_starts", "starts_at", "server_id", "job_kind", postgresql_include=["outcome"]
    ),
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
