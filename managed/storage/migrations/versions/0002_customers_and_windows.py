"""Customers and plans; maintenance windows, those that were missed, and the pause."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("email", sa.String(length=254), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customers")),
        sa.UniqueConstraint("name", name=op.f("uq_customers_name")),
    )
    op.create_table(
        "plans",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("only_security", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sa.UniqueConstraint("name", name=op.f("uq_plans_name")),
    )
    # Not by a batch: that would make the table anew, which rows that refer to it forbid on SQLite.
    for column, table in (("customer_id", "customers"), ("plan_id", "plans")):
        op.execute(
            f"ALTER TABLE servers ADD COLUMN {column} VARCHAR(36)"
            f" CONSTRAINT fk_servers_{column} REFERENCES {table} (id)"
        )
    op.create_index("ix_servers_customer", "servers", ["customer_id"], unique=False)
    op.add_column("jobs", sa.Column("start_by", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "windows",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("plan_id", sa.String(length=36), nullable=True),
        sa.Column("customer_id", sa.String(length=36), nullable=True),
        sa.Column("server_id", sa.String(length=36), nullable=True),
        sa.Column("job_kind", sa.String(length=32), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("zone", sa.String(length=63), nullable=False),
        sa.Column("minutes", sa.Integer(), nullable=False),
        sa.Column("starts_on", sa.String(length=10), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "CASE WHEN plan_id IS NULL THEN 0 ELSE 1 END"
            " + CASE WHEN customer_id IS NULL THEN 0 ELSE 1 END"
            " + CASE WHEN server_id IS NULL THEN 0 ELSE 1 END = 1",
            name=op.f("ck_windows_one_owner"),
        ),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_windows_customer_id")
        ),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_windows_plan_id")),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_windows_server_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_windows")),
        sa.UniqueConstraint(
            "customer_id", "job_kind", name=op.f("uq_windows_customer_id_job_kind")
        ),
        sa.UniqueConstraint("plan_id", "job_kind", name=op.f("uq_windows_plan_id_job_kind")),
        sa.UniqueConstraint("server_id", "job_kind", name=op.f("uq_windows_server_id_job_kind")),
    )
    op.create_table(
        "missed_windows",
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("job_kind", sa.String(length=32), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_missed_windows_server_id")
        ),
        sa.PrimaryKeyConstraint(
            "server_id", "job_kind", "starts_at", name=op.f("pk_missed_windows")
        ),
    )
    op.create_index("ix_missed_windows_recorded", "missed_windows", ["recorded_at"], unique=False)
    op.create_table(
        "pause",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.String(length=253), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_pause_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pause")),
    )
