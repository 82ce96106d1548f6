"""What restic says, and what we make of it. The lines are restic 0.18's own, shortened."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

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
from managed.drivers.restic.output import (
    error_for,
    json_lines,
    message_in,
    parsed_file,
    parsed_snapshots,
    permission_bits,
    require_version,
    verdict_of_check,
)

SUMMARY: dict[str, Json] = {"message_type": "summary", "num_errors": 0, "broken_packs": None}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (10, NoBackup),
        (11, RepositoryLocked),
        (12, RepositoryDamaged),
        (1, CommandFailed),
        (2, CommandFailed),
        (3, CommandFailed),
        (130, CommandFailed),
        (77, CommandFailed),
        (-9, CommandFailed),
    ],
)
def test_every_status_but_zero_is_an_error(status: int, error: type[ManagedError]) -> None:
    assert type(error_for(status, "srv-a", "")) is error


def test_zero_is_no_error() -> None:
    assert error_for(0, "srv-a", "a warning on stderr") is None


@pytest.mark.parametrize(
    "said",
    [
        'Fatal: cannot dump file: path "/x" not found in snapshot',
        '{"message_type":"exit_error","code":1,"message":"no matching ID found for prefix d"}',
    ],
)
def test_what_is_absent_is_not_found(said: str) -> None:
    assert isinstance(error_for(1, "srv-a", said), NotFound)


def test_the_reason_is_the_exit_error_else_the_panic_else_the_first_line() -> None:
    error = '{"message_type":"exit_error","code":1,"message":"Fatal: why\\nand more"}'
    assert message_in(f"retrying after 1s\n{error}\n") == "Fatal: why"
    assert message_in("Load failed\npanic: slice bounds\n\ngoroutine 53\n") == "panic: slice bounds"
    assert message_in("one\ntwo") == "one"
    assert message_in("") == "it gave no reason"
    assert len(message_in("x" * 10_000)) == 500


def test_lines_that_are_no_objects_are_skipped() -> None:
    lines = ["", "plain", "[1]", '{"a": 1}', '{"broken', "7"]
    assert list(json_lines(lines)) == [{"a": 1}]


@pytest.mark.parametrize("version", ["0.18.0", "0.18.1-dev", "0.19.1", "1.0"])
def test_new_enough(version: str) -> None:
    assert require_version(json.dumps({"version": version})) == version


@pytest.mark.parametrize("text", ['{"version": "0.17.3"}', '{"version": "x"}', "restic 0.14.0", ""])
def test_too_old_or_unknown(text: str) -> None:
    with pytest.raises(MissingRequirement):
        require_version(text)


def test_snapshots_need_no_summary() -> None:
    newer: dict[str, Json] = {
        "id": "b" * 64,
        "time": "2026-11-24T02:00:00.123456789+01:00",
        "tags": ["job:1"],
        "summary": {"total_files_processed": 3},
    }
    older = {"id": "a" * 64, "time": "2026-11-24T00:59:59Z", "hostname": "h", "paths": ["/"]}
    first, second = parsed_snapshots(json.dumps([newer, older]))
    assert (first.snapshot_id, first.paths, first.files) == ("a" * 64, ("/",), 0)
    assert second.time == datetime(2026, 11, 24, 1, 0, 0, 123456, UTC)
    assert (second.tags, second.files, second.size, second.hostname) == (("job:1",), 3, 0, "")
    assert parsed_snapshots("null") == []


def test_no_list_is_no_evidence() -> None:
    with pytest.raises(EvidenceMissing):
        parsed_snapshots("")


def test_files_have_unix_permissions() -> None:
    node: dict[str, Json] = {
        "message_type": "node",
        "path": "/bin/su",
        "type": "file",
        "mode": 0o755 | 1 << 23,
        "uid": 0,
        "mtime": "2026-11-24T00:00:00Z",
    }
    found = parsed_file(node)
    assert found is not None
    assert (found.mode, found.uid, found.size, found.kind) == (0o4755, 0, 0, "file")
    assert parsed_file({"message_type": "snapshot"}) is None


@pytest.mark.parametrize(
    ("go", "unix"),
    [(0o644, 0o644), (2147484141, 0o755), (1 << 31 | 1 << 20 | 0o777, 0o1777), (1 << 22, 0o2000)],
)
def test_go_modes(go: int, unix: int) -> None:
    assert permission_bits(go) == unix


def test_a_sound_check() -> None:
    check = verdict_of_check(0, [SUMMARY], 2, 7)
    assert check.is_sound
    assert (check.part, check.parts, check.warnings) == (2, 7, ())


@pytest.mark.parametrize(
    ("status", "messages"),
    [
        (0, []),
        (1, [SUMMARY]),
        (0, [{**SUMMARY, "num_errors": 2}]),
        (0, [{**SUMMARY, "broken_packs": ["ab"]}]),
        (0, [{"message_type": "error", "message": "bad"}, SUMMARY]),
        (0, [{"message_type": "something new"}]),
    ],
)
def test_anything_less_is_not_sound(status: int, messages: list[dict[str, Json]]) -> None:
    assert not verdict_of_check(status, messages, 1, 1).is_sound


def test_what_restic_suggests_is_a_warning() -> None:
    check = verdict_of_check(0, [{**SUMMARY, "suggest_prune": True}], 1, 1)
    assert check.is_sound
    assert len(check.warnings) == 1
