"""Snapshots of some paths alone, taken before these are restored in place."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("snapshots", sa.Column("paths", sa.JSON(none_as_null=True), nullable=True))
