"""How many surveys of a night have found what is read from an index alone."""

from alembic import op

revision = "0011"
down_revision = "0010"

_NAME = "ix_surveys_starts"


def upgrade() -> None:
    op.drop_index(_NAME, "surveys")
    op.create_index(
        _NAME,
        "surveys",
        ["starts_at", "server_id", "job_kind"],
        postgresql_include=["outcome"],
    )
