"""How the control plane's own backup fares; indices for lists and searches of many servers."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "self_backup",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last_good", sa.String(length=63), server_default="", nullable=False),
        sa.Column("last_good_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_self_backup_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_self_backup")),
    )
    op.drop_index("ix_jobs_server_created", "jobs")
    op.create_index("ix_jobs_server_created", "jobs", ["server_id", "created_at", "id"])
    op.create_index("ix_jobs_created", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_kind_created", "jobs", ["kind", "created_at", "id"])
    op.create_index("ix_jobs_status_created", "jobs", ["status", "created_at", "id"])
    op.create_index(
        "ix_servers_address_begin",
        "servers",
        ["address"],
        postgresql_ops={"address": "text_pattern_ops"},
    )
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    operators = "text_pattern_ops" if is_postgresql else ""
    op.execute(f"CREATE INDEX ix_customers_name_begin ON customers (lower(name) {operators})")
    if is_postgresql:
        op.execute('ALTER TABLE servers ALTER COLUMN name TYPE VARCHAR(63) COLLATE "C"')
