"""How the control plane's own backup fares."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Integer, String, Table, Text

from managed.storage.tables.columns import UtcDateTime, metadata

# One row from the first try on.
self_backup = Table(
    "self_backup",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("last_good", String(63), nullable=False, server_default=""),
    Column("last_good_at", UtcDateTime),
    Column("last_try_at", UtcDateTime),
    Column("last_error", Text, nullable=False, server_default=""),
    CheckConstraint("id = 1", name="one_row"),
)
