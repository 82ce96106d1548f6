"""Who is told of what, what they are to be told, and how far that has come."""

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
    text,
)

from managed.storage.tables.columns import StoredJson, UtcDateTime, id_column, metadata

notification_targets = Table(
    "notification_targets",
    metadata,
    id_column(),
    Column("kind", String(16), nullable=False),
    Column("address", Text, nullable=False),
    Column("occasions", StoredJson, nullable=False),
    Column("customer_id", ForeignKey("customers.id")),
    Column("quiet_until", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_notification_targets_customer", "customer_id"),
)

notification_deliveries = Table(
    "notification_deliveries",
    metadata,
    id_column(),
    Column("target_id", ForeignKey("notification_targets.id", ondelete="CASCADE"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", UtcDateTime),
    Column("last_error", Text, nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    CheckConstraint("state IN ('waiting','sent','given-up')", name="state"),
    CheckConstraint("(state = 'waiting') = (next_attempt_at IS NOT NULL)", name="waiting_due"),
    Index(
        "uq_notification_deliveries_one_waiting",
        "target_id",
        unique=True,
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
    Index("ix_notification_deliveries_target", "target_id", "state"),
    Index("ix_notification_deliveries_due", "next_attempt_at"),
    Index("ix_notification_deliveries_created", "created_at"),
)

# Written with what it tells of, in one transaction. Without a delivery it has yet to be told.
notifications = Table(
    "notifications",
    metadata,
    id_column(),
    Column("target_id", ForeignKey("notification_targets.id", ondelete="CASCADE"), nullable=False),
    Column("occasion", String(32), nullable=False),
    Column("server_id", ForeignKey("servers.id"), nullable=False),
    Column("subject_id", String(100), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("facts", StoredJson, nullable=False),
    Column("delivery_id", ForeignKey("notification_deliveries.id", ondelete="CASCADE")),
    UniqueConstraint("target_id", "occasion", "server_id", "subject_id"),
    Index("ix_notifications_at", "at", "id"),
    Index("ix_notifications_delivery", "delivery_id"),
    Index(
        "ix_notifications_untold",
        "target_id",
        sqlite_where=text("delivery_id IS NULL"),
        postgresql_where=text("delivery_id IS NULL"),
    ),
)
