"""The audit log: who did what, when, to what and why; each entry seals all that were before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from managed.domain.errors import Json

FIRST_HASH: Final = "0" * 64
"""What the first entry follows on."""


@dataclass(frozen=True)
class Deed:
    """`action` is a static name such as "submit_job"; `subject` is the id of what it was done to
    (a server where there is one); `reason` is why, such as a ticket's number.
    """

    at: datetime
    actor: str
    action: str
    subject: str
    reason: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditEntry:
    """The deed, numbered from 1 without gaps, and chained to the entry before by its hash."""

    number: int
    deed: Deed
    previous_hash: str
    hash: str


def chained(number: int, deed: Deed, previous_hash: str) -> AuditEntry:
    """The entry of a deed that follows on the one with this hash."""
    return AuditEntry(number, deed, previous_hash, _hash(number, deed, previous_hash))


def chain_problem(entries: Iterable[AuditEntry], head: tuple[int, str]) -> str | None:
    """What is wrong with the log (all its entries in order), or None. `head` is the number and
    hash of the last entry as it is kept apart, so that a log that was cut short shows.
    """
    number, previous = 0, FIRST_HASH
    for entry in entries:
        if entry.number != number + 1:
            return f"entry {number + 1} is missing"
        if entry.previous_hash != previous:
            return f"entry {entry.number} does not follow on the one before it"
        if entry.hash != _hash(entry.number, entry.deed, previous):
            return f"entry {entry.number} was changed after it was written"
        number, previous = entry.number, entry.hash
    if (number, previous) != head:
        return f"the log ends at entry {number}, but entry {head[0]} was written last"
    return None


def _hash(number: int, deed: Deed, previous_hash: str) -> str:
    document = [
        number,
        previous_hash,
        deed.at.astimezone(UTC).isoformat(timespec="microseconds"),
        deed.actor,
        deed.action,
        deed.subject,
        deed.reason,
        dict(deed.data),
    ]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
