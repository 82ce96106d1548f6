"""What restic says: exit statuses and JSON lines. Pure; kinds of messages not known are skipped.

restic leaves out values that are zero, so every number has a default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Final

from managed.domain.errors import (
    CommandFailed,
    EvidenceMissing,
    Json,
    ManagedError,
    MissingRequirement,
    NoBackup,
    NotFound,
    RepositoryDamaged,
    RepositoryLocked,
)
from managed.domain.snapshots import Check, Snapshot, SnapshotFile

OLDEST: Final = (0, 18, 0)
LONGEST_MESSAGE: Final = 500
_ABSENT: Final = re.compile(r"not found in snapshot|no matching ID found|no snapshot found")
_SPECIAL_BITS: Final = ((1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000))


class ResticStatus(IntEnum):
    """restic's exit statuses. Any other number means a failure that nobody knows."""

    OK = 0
    FAILED = 1
    INCOMPLETE = 3
    NO_REPOSITORY = 10
    LOCKED = 11
    WRONG_PASSWORD = 12
    INTERRUPTED = 130


def error_for(status: int, account: str, stderr: str) -> ManagedError | None:
    """What an exit status means on the provider's side; None for success alone."""
    said = message_in(stderr)
    match status:
        case ResticStatus.OK:
            return None
        case ResticStatus.NO_REPOSITORY:
            return NoBackup(f"{account} has no backup repository", account=account)
        case ResticStatus.LOCKED:
            return RepositoryLocked(
                f"the repository of {account} is locked: {said}", retry_after=60, account=account
            )
        case ResticStatus.WRONG_PASSWORD:
            return RepositoryDamaged(
                f"the stored password does not open the repository of {account}",
                hint="Its key file may be gone or replaced; look into keys/ of the repository.",
                account=account,
            )
        case ResticStatus.FAILED if _ABSENT.search(said):
            return NotFound(f"restic: {said}", account=account)
    return CommandFailed(
        f"restic ended with status {status}: {said}", account=account, status=status
    )


def message_in(stderr: str) -> str:
    """The reason that restic gives: its `exit_error`, or what it printed last; one short line."""
    reason = stderr.strip()
    for message in json_lines(stderr.splitlines()):
        if message.get("message_type") == "exit_error":
            reason = str(message.get("message", ""))
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    first = next((line for line in lines if line.startswith(("panic:", "Fatal:"))), None)
    return (first or (lines[0] if lines else "it gave no reason"))[:LONGEST_MESSAGE]


def json_lines(lines: Iterable[str]) -> Iterable[dict[str, Json]]:
    """The lines that are JSON objects."""
    for line in lines:
        if not line.lstrip().startswith("{"):
            continue
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            yield document


def require_version(text: str) -> str:
    """The version in the answer of `restic version --json`, if it is one that we can use."""
    message: Mapping[str, Json] = next(iter(json_lines(text.splitlines())), {})
    version = str(message.get("version", ""))
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    numbers = tuple(int(number or 0) for number in found.groups()) if found else (0, 0, 0)
    if numbers < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise MissingRequirement(
            f"restic {needed} or newer is needed, this one is {version or 'unknown'}",
            hint="Build ours with `python -m images.build restic`.",
        )
    return version


def parsed_snapshots(text: str) -> Sequence[Snapshot]:
    """Read the one document of `restic snapshots --json`; oldest first."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise EvidenceMissing("restic printed no list of snapshots") from error
    return sorted(map(_snapshot, document or ()), key=lambda snapshot: snapshot.time)


def _snapshot(entry: Mapping[str, Json]) -> Snapshot:
    summary = entry.get("summary")
    numbers = summary if isinstance(summary, dict) else {}
    return Snapshot(
        snapshot_id=str(entry["id"]),
        time=datetime.fromisoformat(str(entry["time"])),
        hostname=str(entry.get("hostname", "")),
        paths=_strings(entry.get("paths")),
        tags=_strings(entry.get("tags")),
        files=_number(numbers.get("total_files_processed")),
        size=_number(numbers.get("total_bytes_processed")),
    )


def parsed_file(message: Mapping[str, Json]) -> SnapshotFile | None:
    """Read a line of `restic ls --json`; None for lines that are no nodes."""
    if message.get("message_type", message.get("struct_type")) != "node":
        return None
    return SnapshotFile(
        path=str(message["path"]),
        kind=str(message["type"]),
        mode=permission_bits(_number(message.get("mode"))),
        uid=_number(message.get("uid")),
        gid=_number(message.get("gid")),
        size=_number(message.get("size")),
        mtime=str(message.get("mtime", "")),
        inode=_number(message.get("inode")),
        links=_number(message.get("links")),
    )


def permission_bits(mode: int) -> int:
    """Unix permissions, special bits included, of a mode in Go's own order of bits."""
    return mode & 0o777 | sum(unix for go, unix in _SPECIAL_BITS if mode & go)


def check_progress(message: Mapping[str, Json]) -> dict[str, Json] | None:
    """What a status line of `restic check` says; None for other lines."""
    if message.get("message_type") != "status":
        return None
    return {name: value for name, value in message.items() if name != "message_type"}


def verdict_of_check(
    status: int, messages: Sequence[Mapping[str, Json]], part: int, parts: int
) -> Check:
    """Judge a check that ended with 0 or 1 by what it printed on both channels.

    Sound only if it ended with 0, printed its summary, and counted no error.
    """
    errors = [
        str(message.get("message", "")).strip()[:LONGEST_MESSAGE]
        for message in messages
        if message.get("message_type") == "error"
    ]
    summary = next((m for m in messages if m.get("message_type") == "summary"), None)
    if summary is None:
        errors.append("restic check printed no summary")
    else:
        broken = _strings(summary.get("broken_packs"))
        errors += [f"damaged pack {pack}" for pack in broken]
        if not errors and (count := _number(summary.get("num_errors"))):
            errors.append(f"{count} errors that restic did not name")
    if status != ResticStatus.OK and not errors:
        errors.append(f"restic check ended with status {status}")
    return Check(part, parts, tuple(errors), _warnings_of(summary or {}))


def _warnings_of(summary: Mapping[str, Json]) -> tuple[str, ...]:
    warnings = []
    if summary.get("suggest_prune"):
        warnings.append(
            "there are packs that no index names: planted, or left by a broken-off backup; they"
            " cost space and harm nothing, prune removes them"
        )
    if summary.get("suggest_repair_index"):
        warnings.append("restic suggests to repair the index")
    return tuple(warnings)


def _number(value: Json) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _strings(value: Json) -> tuple[str, ...]:
    return tuple(str(entry) for entry in value) if isinstance(value, list) else ()
