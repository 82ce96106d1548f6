"""Notifications: who is told, of what, and how far that has come."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_WAITING = sa.text("state = 'waiting'")
_UNTOLD = sa.text("delivery_id IS NULL")


def upgrade() -> None:
    op.create_table(
        "notification_targets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("occasions", sa.JSON(), nullable=False),
        sa.Column("customer_id", sa.String(length=36), nullable=True),
        sa.Column("quiet_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_notification_targets_customer_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_targets")),
    )
    op.create_index("ix_notification_targets_customer", "notification_targets", ["customer_id"])
    op.create_table(
        "notification_deliveries",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("target_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting','sent','given-up')", name=op.f("ck_notification_deliveries_state")
        ),
        sa.CheckConstraint(
            "(state = 'waiting') = (next_attempt_at IS NOT NULL)",
            name=op.f("ck_notification_deliveries_waiting_due"),
        ),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["notification_targets.id"],
            name=op.f("fk_notification_deliveries_target_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_deliveries")),
    )
    op.create_index(
        "uq_notification_deliveries_one_waiting",
        "notification_deliveries",
        ["target_id"],
        unique=True,
        sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )
    op.create_index(
        "ix_notification_deliveries_target", "notification_deliveries", ["target_id", "state"]
    )
    op.create_index(
        "ix_notification_deliveries_due", "notification_deliveries", ["next_attempt_at"]
    )
    op.create_index("ix_notification_deliveries_created", "notification_deliveries", ["created_at"])
    op.create_table(
        "notifications",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("target_id", sa.String(length=36), nullable=False),
        sa.Column("occasion", sa.String(length=32), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("subject_id", sa.String(length=100), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("delivery_id", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["notification_targets.id"],
            name=op.f("fk_notifications_target_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_notifications_server_id")
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["notification_deliveries.id"],
            name=op.f("fk_notifications_delivery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.UniqueConstraint(
            "target_id",
            "occasion",
            "server_id",
            "subject_id",
            name=op.f("uq_notifications_target_id_occasion_server_id_subject_id"),
        ),
    )
    op.create_index("ix_notifications_at", "notifications", ["at", "id"])
    op.create_index("ix_notifications_delivery", "notifications", ["delivery_id"])
    op.create_index(
        "ix_notifications_untold",
        "notifications",
        ["target_id"],
        sqlite_where=_UNTOLD,
        postgresql_where=_UNTOLD,
    )
