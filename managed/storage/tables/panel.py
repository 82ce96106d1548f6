"""Who is signed in to the panel, and who may set a password. Of secrets only hashes are here."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, String, Table

from managed.storage.tables.columns import UtcDateTime, metadata

panel_sessions = Table(
    "panel_sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("last_seen_at", UtcDateTime, nullable=False),
    Index("ix_panel_sessions_user", "user_id"),
    Index("ix_panel_sessions_expires", "expires_at"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Index("ix_invitations_user", "user_id"),
)
