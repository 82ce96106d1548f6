"""Copies of the control plane itself: what one says of itself, when the next is due, which stay."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from managed.domain.errors import CopyDamaged, InvalidInput, Json

FORMAT: Final = 1
AFTER_A_FAILURE: Final = timedelta(minutes=15)
# Whoever still writes a copy a day after its begin is not there any more.
_LONGEST_COPYING: Final = timedelta(days=1)
_NAME: Final = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{8}")
_TIME: Final = "%Y%m%dT%H%M%SZ"


def copy_name(taken_at: datetime, unique: str) -> str:
    """Sorts by time; `unique` is eight hexadecimal digits."""
    return f"{taken_at.astimezone(UTC):{_TIME}}-{unique}"


def time_of_copy(name: str) -> datetime:
    """InvalidInput when no copy can have this name."""
    found = _NAME.fullmatch(name)
    try:
        if found:
            return datetime.strptime(found[1], _TIME).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise InvalidInput(
        f"{name!r} is no name of a copy", hint="`managed backup-self --list` tells the names."
    )


def is_copy_name(text: str) -> bool:
    try:
        time_of_copy(text)
    except InvalidInput:
        return False
    return True


@dataclass(frozen=True)
class CopyManifest:
    """What a finished copy holds. `schema` is the revision of the database's schema, `rows` counts
    by table, `sha256` (hexadecimal) is that of the `plain_size` bytes which its `parts` hold when
    opened; `sealed_size` is what they take in the bucket. `first_event_at` is None without events.
    """

    name: str
    taken_at: datetime
    managed_version: str
    engine: str
    schema: str
    rows: Mapping[str, int]
    first_event_at: datetime | None
    parts: int
    plain_size: int
    sealed_size: int
    sha256: str

    def as_json(self) -> dict[str, Json]:
        return {
            "format": FORMAT,
            "name": self.name,
            "taken_at": self.taken_at.isoformat(),
            "managed_version": self.managed_version,
            "engine": self.engine,
            "schema": self.schema,
            "rows": dict(self.rows),
            "first_event_at": self.first_event_at.isoformat() if self.first_event_at else None,
            "parts": self.parts,
            "plain_size": self.plain_size,
            "sealed_size": self.sealed_size,
            "sha256": self.sha256,
        }


def manifest_from_json(document: Mapping[str, Json]) -> CopyManifest:
    """A manifest that was authenticated before. CopyDamaged when this version cannot read it."""
    if document.get("format") != FORMAT:
        raise CopyDamaged(
            f"the copy has format {document.get('format')}; this version reads format {FORMAT}",
            hint="Restore it with the version of managed that made it, or a newer one.",
        )
    moments = {
        name: datetime.fromisoformat(str(document[name])) if document[name] else None
        for name in ("taken_at", "first_event_at")
    }
    values: dict[str, Any] = {**document, **moments}
    del values["format"]
    return CopyManifest(**values)


@dataclass(frozen=True)
class KeepRule:
    """Every copy of the last time `within`, then the newest of each of so many days and weeks (in
    UTC) that have one.
    """

    within: timedelta = timedelta(days=2)
    days: int = 14
    weeks: int = 8


def copies_to_forget(names: Collection[str], rule: KeepRule, now: datetime) -> tuple[str, ...]:
    """Which of these good copies the rule keeps no longer, oldest first; never the newest."""
    newest_first = sorted(names, reverse=True)
    kept = set(newest_first[:1])
    kept |= {name for name in names if now - time_of_copy(name) <= rule.within}
    for form, count in (("%F", rule.days), ("%G-%V", rule.weeks)):
        newest: dict[str, str] = {}
        for name in newest_first:
            newest.setdefault(f"{time_of_copy(name):{form}}", name)
        kept |= set(list(newest.values())[:count])
    return tuple(sorted(set(names) - kept))


def is_abandoned(unfinished: str, now: datetime) -> bool:
    """Is nobody at work on this unfinished copy any more?"""
    return now - time_of_copy(unfinished) > _LONGEST_COPYING


@dataclass(frozen=True)
class SelfBackupState:
    """How the control plane's own backup fares. `last_error` is empty when the last try was good;
    `last_good` is the name of the newest copy that was verified (empty: none yet).
    """

    last_good: str = ""
    last_good_at: datetime | None = None
    last_try_at: datetime | None = None
    last_error: str = ""

    def is_due(self, every: timedelta, now: datetime) -> bool:
        """Is it time for the next copy? After a failure the next try comes soon, not at once."""
        if self.last_error and self.last_try_at is not None:
            return self.last_try_at + min(every, AFTER_A_FAILURE) <= now
        return self.last_good_at is None or self.last_good_at + every <= now

    def problem(self, every: timedelta, now: datetime) -> str | None:
        """What an operator has to know of: the last try failed, or good copies do not come."""
        if self.last_error:
            return f"the last backup of the control plane failed: {self.last_error}"
        if self.last_good_at is None:
            return "there is no backup of the control plane yet"
        if self.last_good_at + 2 * every <= now:
            return f"the last backup of the control plane is of {self.last_good_at:%F %T} UTC"
        return None
