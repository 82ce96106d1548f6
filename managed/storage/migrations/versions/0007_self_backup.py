"""How the control plane's own backup fares."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0002"


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
