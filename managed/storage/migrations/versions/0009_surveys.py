"""What surveys have found before a window started anything."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "surveys",
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("job_kind", sa.String(length=32), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("found", sa.JSON(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('nothing-to-do','work','unknown')", name=op.f("ck_surveys_outcome")
        ),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_surveys_server_id")),
        sa.PrimaryKeyConstraint("server_id", "job_kind", "starts_at", name=op.f("pk_surveys")),
    )
    op.create_index("ix_surveys_starts", "surveys", ["starts_at", "server_id", "job_kind"])
