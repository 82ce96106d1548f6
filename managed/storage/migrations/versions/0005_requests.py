"""Requests that tickets become, what helpdesks delivered, and the answers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("ticket_id", sa.BigInteger(), nullable=False),
        sa.Column("ticket_number", sa.String(length=32), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("server_attribute", sa.String(length=64), nullable=False),
        sa.Column("by_email", sa.Boolean(), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=True),
        sa.Column("customer_id", sa.String(length=36), nullable=True),
        sa.Column("proposed_action", sa.JSON(), nullable=False),
        sa.Column("rule", sa.String(length=63), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_by", sa.String(length=253), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_action", sa.JSON(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status = 'open' OR decided_at IS NOT NULL", name=op.f("ck_requests_decided")
        ),
        sa.CheckConstraint(
            "status IN ('open','approved','refused','done','failed')",
            name=op.f("ck_requests_status"),
        ),
        sa.CheckConstraint(
            "status IN ('open','refused') OR (job_id IS NOT NULL AND server_id IS NOT NULL)",
            name=op.f("ck_requests_approved_has_job"),
        ),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_requests_customer_id")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_requests_job_id")),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_requests_server_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
        sa.UniqueConstraint("job_id", name=op.f("uq_requests_job_id")),
    )
    op.create_index(
        "ix_requests_approved",
        "requests",
        ["job_id"],
        unique=False,
        sqlite_where=sa.text("status = 'approved'"),
        postgresql_where=sa.text("status = 'approved'"),
    )
    op.create_index("ix_requests_created", "requests", ["created_at", "id"], unique=False)
    op.create_index("ix_requests_customer", "requests", ["customer_id"], unique=False)
    op.create_index("ix_requests_server", "requests", ["server_id"], unique=False)
    op.create_index(
        "uq_requests_one_open_per_ticket",
        "requests",
        ["ticket_id"],
        unique=True,
        sqlite_where=sa.text("status = 'open'"),
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=120), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_deliveries_request_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index("ix_deliveries_received", "deliveries", ["received_at"], unique=False)
    op.create_table(
        "replies",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("ticket_id", sa.BigInteger(), nullable=False),
        sa.Column("recipient", sa.String(length=254), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("article_id", sa.String(length=32), server_default="", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_replies_request_id")
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_replies")),
    )
    op.create_index(
        "ix_replies_due",
        "replies",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "request_articles",
        sa.Column("ticket_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("article_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("is_note", sa.Boolean(), nullable=False),
        sa.Column("sender", sa.String(length=254), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_request_articles_request_id")
        ),
        sa.PrimaryKeyConstraint("ticket_id", "article_id", name=op.f("pk_request_articles")),
    )
    op.create_index("ix_request_articles_request", "request_articles", ["request_id"], unique=False)
