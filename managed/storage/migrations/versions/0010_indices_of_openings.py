"""Indices by which the clock finds what an opening of a window has started and missed."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    has_one = sa.text("run_key IS NOT NULL")
    op.create_index(
        "ix_jobs_kind_run_key",
        "jobs",
        ["kind", "run_key", "server_id"],
        sqlite_where=has_one,
        postgresql_where=has_one,
    )
    op.create_index(
        "ix_missed_windows_opening", "missed_windows", ["job_kind", "starts_at", "server_id"]
    )
