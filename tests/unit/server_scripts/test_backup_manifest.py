"""Which of three listings a manifest believes for each path."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from managed.domain.manifests import EntryKind, EntrySource, ManifestEntry, entry_line
from managed.server_scripts._backup_manifest import (
    Node,
    Recorded,
    Seen,
    incompleteness,
    listed_entry,
    nanoseconds,
    parsed_node,
    recorded_line,
    seen_paths,
    unix_mode,
    verdict,
)
from managed.server_scripts._files import ScannedFile, signature
from managed.server_scripts._snapshot_files import (
    line_pattern,
    linked_names,
    literal_pattern,
    split_by_space,
)

ENTRY = ManifestEntry("/f", EntryKind.FILE, 0o644, 0, 0, 5_000_000_000, 3, "ab" * 32)
NODE = Node("/f", EntryKind.FILE, 0o644, 0, 0, 3, 5_000_000_000)


@pytest.fixture
def status(tmp_path: Path) -> os.stat_result:
    (tmp_path / "f").write_text("abc")
    return (tmp_path / "f").stat()


def seen(status: os.stat_result, node: Node | None = NODE, entry: ManifestEntry = ENTRY) -> Seen:
    return Seen("/f", Recorded(signature(status), entry), ScannedFile(entry, status), node)


def test_an_unchanged_file_is_taken_from_the_server(status: os.stat_result) -> None:
    assert verdict(seen(status)) == "server"


def test_a_file_that_changed_meanwhile_is_taken_from_the_snapshot(status: os.stat_result) -> None:
    changed = [value + 1 for value in signature(status)]
    for position in range(len(changed)):
        mixed = signature(status)
        mixed[position] = changed[position]
        assert verdict(seen(status)._replace(first=Recorded(mixed, ENTRY))) == "snapshot"


@pytest.mark.parametrize(
    "change",
    [
        {"mode": 0o600},
        {"uid": 1},
        {"gid": 1},
        {"size": 4},
        {"mtime_ns": 1},
        {"kind": EntryKind.FIFO},
    ],
)
def test_what_restic_lists_otherwise_is_taken_from_the_snapshot(
    status: os.stat_result, change: dict[str, Any]
) -> None:
    assert verdict(seen(status, NODE._replace(**change))) == "snapshot"


def test_new_vanished_and_unread_files_are_taken_from_the_snapshot(status: os.stat_result) -> None:
    assert verdict(seen(status)._replace(first=None)) == "snapshot"
    assert verdict(seen(status)._replace(second=None)) == "snapshot"
    assert verdict(seen(status, entry=replace(ENTRY, sha256=""))) == "snapshot"


def test_a_stable_file_that_restic_missed_is_missing(status: os.stat_result) -> None:
    assert verdict(seen(status, node=None)) == "missing"
    assert verdict(seen(status, node=None)._replace(first=None)) == "gone"
    assert verdict(seen(status, node=None)._replace(second=None)) == "gone"


def test_three_listings_are_joined_by_path(status: os.stat_result) -> None:
    names = ["/", "/a", "/a/b", "/a-b", "/latin-\udce9", "/z"]
    first = [Recorded(signature(status), replace(ENTRY, path=name)) for name in names]
    second = [ScannedFile(replace(ENTRY, path=name), status) for name in names if name != "/a"]
    listed = ["/a", "/a/b", "/a-b", "/latin-\ufffd", "/new", "/z"]
    joined = list(seen_paths(first, second, [NODE._replace(path=name) for name in listed]))
    verdicts = {item.path: verdict(item) for item in joined}

    assert len(joined) == len(verdicts)
    assert verdicts == {
        "/": "server",
        "/a": "snapshot",
        "/a/b": "server",
        "/a-b": "server",
        "/latin-\udce9": "server",
        "/new": "snapshot",
        "/z": "server",
    }


def test_two_names_that_look_alike_are_told_apart_by_what_they_are(
    status: os.stat_result,
) -> None:
    entries = [replace(ENTRY, path="/x-\udce8"), replace(ENTRY, path="/x-\udce9", size=9)]
    nodes = [NODE._replace(path="/x-\ufffd", size=9), NODE._replace(path="/x-\ufffd")]
    first = [Recorded(signature(status), entry) for entry in entries]
    second = [ScannedFile(entry, status) for entry in entries]

    assert [verdict(item) for item in seen_paths(first, second, nodes)] == ["server", "server"]


def test_a_listed_entry_says_where_it_comes_from(status: os.stat_result) -> None:
    entry = listed_entry(seen(status), "cd" * 32)

    assert entry.source is EntrySource.SNAPSHOT
    assert entry.sha256 == "cd" * 32


def test_what_is_missing_from_a_snapshot_is_why_it_is_no_good_backup() -> None:
    error = incompleteness(["'/a' is not in the snapshot", *"bcde"])

    assert error["code"] == "evidence-missing"
    assert error["detail"].endswith("incomplete: '/a' is not in the snapshot; b; c (and 2 more)")
    assert incompleteness(["b"])["detail"].endswith("incomplete: b")


def test_restics_listing_is_read() -> None:
    line = {
        "type": "file",
        "path": "/usr/bin/sudo",
        "uid": 0,
        "gid": 0,
        "size": 7,
        "mode": 0o755 | 1 << 23,
        "mtime": "2001-02-03T04:05:06.123456789Z",
    }

    assert parsed_node(line) == Node(
        "/usr/bin/sudo", EntryKind.FILE, 0o4755, 0, 0, 7, 981_173_106_123_456_789
    )
    assert parsed_node({"struct_type": "snapshot", "paths": ["/"]}) is None
    assert parsed_node({**line, "type": "socket"}) is None


def test_times_and_modes_of_go_are_understood() -> None:
    assert nanoseconds("1970-01-01T01:00:00+01:00") == 0
    assert nanoseconds("1969-12-31T19:00:01.5-05:00") == 1_500_000_000
    assert unix_mode(1 << 31 | 1 << 20 | 0o777) == 0o1777
    assert unix_mode(1 << 22 | 0o755) == 0o2755
    with pytest.raises(ValueError, match="not a time"):
        nanoseconds("yesterday")


def test_a_line_of_the_first_pass_comes_back(status: os.stat_result) -> None:
    text = f"{json.dumps(signature(status))}\t{entry_line(ENTRY)}"
    assert recorded_line(text) == Recorded(signature(status), ENTRY)


def test_patterns_for_restic_match_one_path_alone() -> None:
    assert literal_pattern("/a*[b]?\\c") == r"/a\*\[b\]\?\\c"


def test_patterns_in_a_file_match_what_a_line_can_hold() -> None:
    assert line_pattern("/a*$HOME") == r"/a\*$$HOME"
    assert line_pattern("/new\nline \t") == "/new?line [\t]"


def changed(path: str, inode: int, size: int = 3) -> Seen:
    return Seen(path, None, None, NODE._replace(path=path, inode=inode, size=size))


def test_names_of_one_inode_fit_together_or_not_at_all() -> None:
    one, other, two, unknown = (
        changed("/a", 7), changed("/b", 8, size=5), changed("/z", 7), changed("/u", 0),
    )  # fmt: skip

    assert split_by_space([one, other, two, unknown], 14) == ([one, other, two, unknown], [])
    assert split_by_space([one, other, two, unknown], 9) == ([other, unknown], [one, two])
    assert split_by_space([one, two], 5) == ([], [one, two])


def test_only_names_that_were_linked_when_restic_read_them_are_names_of_one_file() -> None:
    """`ln /a /b` between the reading of both: /a is restored as a file of its own."""
    seen = [changed("/a", 7), changed("/b", 7), changed("/c", 7), changed("/d", 7)]
    links = {("/a", 7): (0, 1), ("/b", 7): (65024, 2), ("/c", 7): (65024, 3), ("/d", 7): (65025, 2)}

    assert list(linked_names(seen, links)) == [[seen[0]], [seen[1], seen[2]], [seen[3]]]
    assert list(linked_names(seen, {})) == [[each] for each in seen]
