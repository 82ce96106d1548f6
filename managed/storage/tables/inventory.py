"""What is there: nodes, servers and their secrets, whose they are, and what is covered."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    func,
    text,
)

from managed.storage.tables.columns import StoredJson, UtcDateTime, id_column, metadata

nodes = Table(
    "nodes",
    metadata,
    id_column(),
    Column("name", String(63), nullable=False, unique=True),
    Column("libvirt_uri", Text, nullable=False),
    Column("storage_dir", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

customers = Table(
    "customers",
    metadata,
    id_column(),
    Column("name", String(100), nullable=False, unique=True),
    Column("email", String(254), nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
)
# Searched by how it begins, in whatever case.
Index(
    "ix_customers_name_begin",
    func.lower(customers.c.name).label("lower_name"),
    postgresql_ops={"lower_name": "text_pattern_ops"},
)

plans = Table(
    "plans",
    metadata,
    id_column(),
    Column("name", String(63), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("only_security", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Since when its kind is what it is; none: since it was created.
    Column("kind_since", UtcDateTime),
)

# Of plain characters, in their order: so one index serves pages and searches by a name's begin.
_NAME = String(63).with_variant(String(63, collation="C"), "postgresql")

servers = Table(
    "servers",
    metadata,
    id_column(),
    Column("name", _NAME, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("address", String(253), nullable=False),
    Column("ssh_port", Integer, nullable=False),
    Column("ssh_user", String(32), nullable=False),
    Column("host_key", Text, nullable=False),
    Column("operating_system", String(63), nullable=False),
    Column("node_id", ForeignKey("nodes.id")),
    Column("spec", StoredJson(none_as_null=True)),
    Column("repository_key_id", String(64), nullable=False, server_default=""),
    Column("checked_parts", Integer, nullable=False, server_default="0"),
    Column("customer_id", ForeignKey("customers.id")),
    Column("plan_id", ForeignKey("plans.id")),
    Column("created_at", UtcDateTime, nullable=False),
    # Since when it is under management as this customer's, on this plan; none: not yet.
    Column("placed_since", UtcDateTime),
    Index(
        "uq_servers_name_present",
        "name",
        unique=True,
        sqlite_where=text("status <> 'deleted'"),
        postgresql_where=text("status <> 'deleted'"),
    ),
    Index("ix_servers_customer", "customer_id"),
    Index("ix_servers_address_begin", "address", postgresql_ops={"address": "text_pattern_ops"}),
)

sealed_secrets = Table(
    "sealed_secrets",
    metadata,
    Column("owner", String(36), primary_key=True),
    Column("purpose", String(63), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
