"""What helpdesks have sent, the requests that it became, and the answers on their way back."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from managed.storage.tables.columns import StoredJson, UtcDateTime, id_column, metadata

requests = Table(
    "requests",
    metadata,
    id_column(),
    Column("ticket_id", BigInteger, nullable=False),
    Column("ticket_number", String(32), nullable=False),
    Column("title", Text, nullable=False),
    Column("server_attribute", String(64), nullable=False),
    Column("by_email", Boolean, nullable=False),
    Column("server_id", ForeignKey("servers.id")),
    Column("customer_id", ForeignKey("customers.id")),
    Column("proposed_action", StoredJson, nullable=False),
    Column("rule", String(63), nullable=False),
    Column("why", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("decided_by", String(253)),
    Column("decided_at", UtcDateTime),
    Column("decided_action", StoredJson(none_as_null=True)),
    Column("reason", Text, nullable=False, server_default=""),
    Column("job_id", ForeignKey("jobs.id"), unique=True),
    Column("ended_at", UtcDateTime),
    CheckConstraint("status IN ('open','approved','refused','done','failed')", name="status"),
    CheckConstraint(
        "status IN ('open','refused') OR (job_id IS NOT NULL AND server_id IS NOT NULL)",
        name="approved_has_job",
    ),
    CheckConstraint("status = 'open' OR decided_at IS NOT NULL", name="decided"),
    Index(
        "uq_requests_one_open_per_ticket",
        "ticket_id",
        unique=True,
        sqlite_where=text("status = 'open'"),
        postgresql_where=text("status = 'open'"),
    ),
    Index("ix_requests_created", "created_at", "id"),
    Index("ix_requests_server", "server_id"),
    Index("ix_requests_customer", "customer_id"),
    Index(
        "ix_requests_approved",
        "job_id",
        sqlite_where=text("status = 'approved'"),
        postgresql_where=text("status = 'approved'"),
    ),
)

# The first article of a request is what it was made of; those after it are notes.
request_articles = Table(
    "request_articles",
    metadata,
    Column("ticket_id", BigInteger, primary_key=True, autoincrement=False),
    Column("article_id", BigInteger, primary_key=True, autoincrement=False),
    Column("request_id", ForeignKey("requests.id"), nullable=False),
    Column("is_note", Boolean, nullable=False),
    Column("sender", String(254), nullable=False),
    Column("text", Text, nullable=False),
    Column("written_at", UtcDateTime, nullable=False),
    Index("ix_request_articles_request", "request_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(120), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("request_id", ForeignKey("requests.id")),
    Column("received_at", UtcDateTime, nullable=False),
    Index("ix_deliveries_received", "received_at"),
)

# One answer to each request at most. A try is counted before it is made, `sent_at` comes after.
replies = Table(
    "replies",
    metadata,
    Column("request_id", ForeignKey("requests.id"), primary_key=True),
    Column("ticket_id", BigInteger, nullable=False),
    Column("recipient", String(254), nullable=False),
    Column("subject", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("sent_at", UtcDateTime),
    Column("article_id", String(32), nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    Index(
        "ix_replies_due",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
)
