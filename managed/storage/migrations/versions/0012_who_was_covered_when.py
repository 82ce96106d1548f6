"""How windows and servers' cover were, until they were changed."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("plans", sa.Column("kind_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("servers", sa.Column("placed_since", sa.DateTime(timezone=True), nullable=True))
    # Those that had not been under management all the time were told as missed by then.
    op.execute(
        "UPDATE servers SET placed_since = created_at WHERE status IN ('active', 'broken')"
        " OR (status = 'rescue' AND EXISTS (SELECT 1 FROM rescue_sessions WHERE server_id ="
        " servers.id AND ended_at IS NULL AND status_before <> 'new'))"
    )
    op.create_table(
        "past_windows",
        sa.Column("window_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plan_id", sa.String(length=36), nullable=True),
        sa.Column("customer_id", sa.String(length=36), nullable=True),
        sa.Column("server_id", sa.String(length=36), nullable=True),
        sa.Column("job_kind", sa.String(length=32), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("zone", sa.String(length=63), nullable=False),
        sa.Column("minutes", sa.Integer(), nullable=False),
        sa.Column("starts_on", sa.String(length=10), nullable=False),
        sa.PrimaryKeyConstraint("window_id", "created_at", name=op.f("pk_past_windows")),
    )
    op.create_table(
        "past_placements",
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("customer_id", sa.String(length=36), nullable=True),
        sa.Column("plan_id", sa.String(length=36), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("server_id", "since", name=op.f("pk_past_placements")),
    )
    op.create_table(
        "past_management",
        sa.Column("plan_id", sa.String(length=36), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("plan_id", "since", name=op.f("pk_past_management")),
    )
