"""What survey_updates.py prints on servers that exist in memory only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def nothing_to_do(now: datetime) -> dict[str, Any]:
    """The document of a server whose clock says `now` and that is up to date."""
    return {
        "only_security": False,
        "unfinished_patch": False,
        "damaged": [],
        "audit": [],
        "reboot": {"needed": False, "reasons": [], "running": "6.1.0-41-amd64", "newest": ""},
        "lists": {
            "updated_at": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "indexes": 2,
            "security_indexes": 1,
            "releases": [
                {"name": "main_InRelease", "date": "Sat, 10 Jan 2026 10:16:37 UTC"},
                {"name": "security_InRelease", "date": "Sat, 28 Mar 2026 02:53:00 UTC"},
            ],
        },
        "pending": [],
        "held": [],
        "kept_back": [],
    }


def update(name: str, *, security: bool = False) -> dict[str, Any]:
    origin = "Debian-Security:12/oldstable-security" if security else "Debian:12/oldstable"
    return {"name": name, "before": "1", "after": "2", "security": security, "origin": origin}
