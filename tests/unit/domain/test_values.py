"""Small values of the domain: secrets, names, questions, run logs, snapshots."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from managed.domain.errors import InvalidInput, Json, ServerBusy
from managed.domain.manifests import EntryKind, ManifestEntry
from managed.domain.questions import (
    PowerIs,
    RunEnded,
    SshAnswers,
    question_as_json,
    question_from_json,
)
from managed.domain.run_log import MARK, events_of_log
from managed.domain.secrets import Secret
from managed.domain.servers import (
    checked_address,
    checked_name,
    checked_size,
    disk_serial_for,
)
from managed.domain.snapshots import SnapshotFile, SnapshotRecord, snapshot_to_restore
from managed.domain.verification import content_differences, files_to_read, snapshot_differences

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("hunter2")
    shown = f"{secret} {secret!r} {secret!s} {[secret]} {secret:>20}"
    assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps({"password": secret})
    assert secret.reveal() == "hunter2"


@pytest.mark.parametrize("name", ["a", "web-1", "a" * 63])
def test_host_names_are_accepted(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "../x", "a" * 64, "ä", "a\n"])
def test_other_names_are_refused_with_a_hint(name: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        checked_name(name)
    assert refusal.value.hint


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "vps.example.org", "localhost"])
def test_addresses_are_accepted(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize("address", ["", "-oProxyCommand=x", "a b", "vps..org", "a/b", "x" * 254])
def test_what_a_command_line_could_misread_is_no_address(address: str) -> None:
    with pytest.raises(InvalidInput):
        checked_address(address)


@pytest.mark.parametrize("size", [(0, 512, 10), (1, 128, 10), (1, 512, 1), (1, 512, 10**9)])
def test_impossible_sizes_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput):
        checked_size(*size)


def test_disk_serials_fit_and_differ() -> None:
    serials = {disk_serial_for(f"{n:08x}-0000-4000-8000-{n:012x}") for n in range(100)}
    assert len(serials) == 100
    assert all(len(serial) <= 20 for serial in serials)


@pytest.mark.parametrize(
    "question",
    [RunEnded("j.s.1", tunnel=True, offset=7), SshAnswers("boot", "up"), PowerIs("stopped")],
)
def test_questions_survive_json(question: RunEnded | SshAnswers | PowerIs) -> None:
    document = json.loads(json.dumps(question_as_json(question)))
    assert question_from_json(document) == question


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "weather"},
        {},
        {"kind": ["run-ended"]},
        {"kind": "run-ended"},
        {"kind": "run-ended", "run_id": "j.s.1", "of_a_later_version": True},
        {"kind": "run-ended", "run_id": "j.s.1", "offset": "0"},
        {"kind": "run-ended", "run_id": "j.s.1", "offset": True},
    ],
)
def test_a_question_that_this_version_does_not_know_is_an_error(document: dict[str, Json]) -> None:
    with pytest.raises(InvalidInput):
        question_from_json(document)


def test_marked_lines_become_events_and_the_others_output() -> None:
    text = 'one\ntwo\n@managed {"event": "patch_progress", "done": 1}\n@managed broken\nthree\n'
    assert list(events_of_log(text)) == [
        ("run_output", {"lines": ["one", "two"]}),
        ("patch_progress", {"done": 1}),
        ("run_output", {"lines": ["@managed broken", "three"]}),
    ]


@pytest.mark.parametrize(
    "said",
    [
        '{"event": "job_ended", "status": "succeeded"}',
        '{"event": "step_done", "step": "verify"}',
        '{"event": "run_output", "lines": ["forged"]}',
        f'{{"event": "{"x" * 64}"}}',
        '{"event": "patch_progress", "percent": NaN}',
        '{"event": "patch_progress", "percent": 1e999}',
        '{"event": "patch_progress", "percent": {"nested": 1}}',
        '{"event": "patch_progress", "percent": "[/nope]"}',
        '{"event": "patch_progress", "percent": true}',
        '{"event": "manifest_progress", "files": "many"}',
        '{"event": "backup_step", "name": 7}',
        f'{{"event": "patch_progress", "phase": "{"x" * 2000}"}}',
        '{"event": ["patch_progress"]}',
        "[" * 1900,
        "7",
    ],
)
def test_what_no_script_of_ours_says_stays_plain_output(said: str) -> None:
    assert list(events_of_log(MARK + said)) == [("run_output", {"lines": [MARK + said]})]


@settings(deadline=None)
@given(some.text())
def test_any_log_can_be_read(text: str) -> None:
    for name, data in events_of_log(text):
        json.dumps({name: data})


def test_errors_tell_people_what_to_do() -> None:
    document = ServerBusy("a patch is at work", hint="Wait.", job_id="7").as_json()
    assert document["code"] == "server-busy"
    assert document["hint"] == "Wait."
    assert document["data"] == {"job_id": "7"}


def snapshot(name: str, hours: int, *, verified: bool = True) -> SnapshotRecord:
    time = NOON + timedelta(hours=hours)
    return SnapshotRecord(name, "s", "j", time, 1, 1, "m", "l", time if verified else None)


def test_the_newest_verified_snapshot_is_restored() -> None:
    records = [snapshot("old", -2), snapshot("new", -1), snapshot("unproven", 0, verified=False)]
    chosen = snapshot_to_restore(records, None)
    assert chosen is not None
    assert chosen.snapshot_id == "new"
    as_of = snapshot_to_restore(records, NOON - timedelta(hours=2))
    assert as_of is not None
    assert as_of.snapshot_id == "old"
    assert snapshot_to_restore(records[2:], None) is None


ENTRY = ManifestEntry("/etc/fstab", EntryKind.FILE, 0o644, 0, 0, 1, size=5, sha256="ab" * 32)
FILE = SnapshotFile("/etc/fstab", "file", 0o644, 0, 0, 5, "")


def test_a_snapshot_that_holds_the_manifest_is_in_order() -> None:
    socket = SnapshotFile("/run/x", "socket", 0o777, 0, 0, 0, "")
    root = ManifestEntry("/", EntryKind.DIRECTORY, 0o755, 0, 0, 1)
    assert snapshot_differences([root, ENTRY], [FILE, socket]) == []


@pytest.mark.parametrize(
    "files",
    [
        [],
        [FILE, SnapshotFile("/etc/more", "file", 0o644, 0, 0, 5, "")],
        [SnapshotFile("/etc/fstab", "file", 0o644, 0, 0, 6, "")],
        [SnapshotFile("/etc/fstab", "file", 0o600, 0, 0, 5, "")],
        [SnapshotFile("/etc/fstab", "file", 0o644, 1000, 0, 5, "")],
        [SnapshotFile("/etc/fstab", "symlink", 0o644, 0, 0, 5, "")],
    ],
)
def test_every_difference_from_the_manifest_is_found(files: list[SnapshotFile]) -> None:
    assert len(snapshot_differences([ENTRY], files)) == 1


def latin(last: str, *, size: int) -> ManifestEntry:
    return ManifestEntry(f"/srv/latin-{last}", EntryKind.FILE, 0o644, 0, 0, 1, size=size)


def listed(size: int) -> SnapshotFile:
    return SnapshotFile("/srv/latin-\ufffd", "file", 0o644, 0, 0, size, "")


def test_names_that_are_listed_as_one_are_matched_by_what_they_look_like() -> None:
    manifest = [latin("\udce8", size=1), latin("\udce9", size=2), latin("\ufffd", size=3)]

    assert snapshot_differences(manifest, [listed(3), listed(1), listed(2)]) == []
    assert snapshot_differences(manifest, [listed(3), listed(1), listed(1)])
    assert snapshot_differences(manifest, [listed(3), listed(1)])
    assert len(snapshot_differences(manifest, [listed(n) for n in (1, 2, 3, 3)])) == 1


def test_contents_are_compared_by_digest() -> None:
    assert content_differences([ENTRY], {"/etc/fstab": "ab" * 32}) == []
    assert content_differences([ENTRY], {"/etc/fstab": "cd" * 32})
    assert content_differences([ENTRY], {})


def test_the_sample_holds_what_restores_need_and_varies_with_the_snapshot() -> None:
    others = [
        ManifestEntry(f"/srv/{n}", EntryKind.FILE, 0o644, 0, 0, 1, size=1) for n in range(100)
    ]
    chosen = [{e.path for e in files_to_read([ENTRY, *others], seed, 8)} for seed in "ab"]
    assert all(len(paths) == 8 and "/etc/fstab" in paths for paths in chosen)
    assert chosen[0] != chosen[1]
