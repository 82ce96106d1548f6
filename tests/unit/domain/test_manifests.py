"""Manifests survive their text form, and every difference is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain.manifests import (
    COMPARED_FIELDS,
    DamagedManifest,
    EntryKind,
    EntrySource,
    ManifestEntry,
    entry_line,
    manifest_differences,
    manifest_lines,
    merged_by_path,
    parsed_entry,
    parsed_manifest,
    tree_order,
)

FILE = ManifestEntry(
    path="/etc/motd",
    kind=EntryKind.FILE,
    mode=0o644,
    uid=0,
    gid=0,
    mtime_ns=1_700_000_000_123_456_789,
    size=3,
    sha256="ab" * 32,
    xattrs=(("user.note", "00ff"),),
)
OTHER = {
    "kind": EntryKind.FIFO,
    "mode": 0o4755,
    "uid": 1,
    "gid": 2,
    "size": 4,
    "sha256": "cd" * 32,
    "mtime_ns": FILE.mtime_ns + 1,
    "xattrs": (("user.note", "00fe"),),
    "target": "elsewhere",
    "hard_link": "/etc/first",
    "device": (1, 3),
}

names = st.binary(min_size=1, max_size=8).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
paths = st.lists(names, min_size=1, max_size=4).map(
    lambda parts: "/" + b"/".join(parts).decode("utf-8", "surrogateescape")
)
entries = st.builds(
    ManifestEntry,
    path=paths,
    kind=st.sampled_from(EntryKind),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime_ns=st.integers(-(2**62), 2**62),
    size=st.integers(0, 2**62),
    sha256=st.sampled_from(["", "ab" * 32]),
    xattrs=st.dictionaries(st.text(min_size=1, max_size=5), st.just("ff"), max_size=2).map(
        lambda values: tuple(sorted(values.items()))
    ),
    target=paths | st.just(""),
    hard_link=paths | st.just(""),
    device=st.none() | st.tuples(st.integers(0, 4095), st.integers(0, 99999)),
    source=st.sampled_from(EntrySource),
)
manifests = st.lists(entries, max_size=8, unique_by=lambda entry: entry.path).map(
    lambda found: sorted(found, key=lambda entry: tree_order(entry.path))
)


@given(manifests)
def test_a_manifest_comes_back_as_it_was_written(manifest: list[ManifestEntry]) -> None:
    text = "".join(manifest_lines(manifest))

    assert text.isascii()
    assert list(parsed_manifest(text.splitlines(keepends=True))) == manifest


@given(manifests.filter(bool), st.data())
def test_a_manifest_cut_short_is_noticed(
    manifest: list[ManifestEntry], data: st.DataObject
) -> None:
    lines = list(manifest_lines(manifest))
    missing = data.draw(st.integers(0, len(lines) - 1))

    with pytest.raises(DamagedManifest):
        list(parsed_manifest(lines[:missing] + lines[missing + 1 :]))


@given(manifests)
def test_equal_manifests_have_no_difference(manifest: list[ManifestEntry]) -> None:
    read_back = [replace(entry, source=EntrySource.SNAPSHOT) for entry in manifest]

    assert list(manifest_differences(manifest, read_back)) == []


@given(manifests, manifests)
def test_paths_of_one_side_alone_are_named(
    expected: list[ManifestEntry], found: list[ManifestEntry]
) -> None:
    differences = manifest_differences(expected, found)
    named = {d.path: d.expected for d in differences if d.field == "path"}
    wanted, seen = ({entry.path for entry in side} for side in (expected, found))

    assert named == dict.fromkeys(wanted - seen, "present") | dict.fromkeys(seen - wanted, "absent")


@pytest.mark.parametrize("field", COMPARED_FIELDS)
def test_each_property_is_compared(field: str) -> None:
    changed = replace(FILE, **{field: OTHER[field]})

    assert [d.field for d in manifest_differences([FILE], [changed])] == [field]
    assert list(manifest_differences([FILE], [changed], {FILE.path})) == []


def test_rewritten_paths_may_be_missing_or_new() -> None:
    assert list(manifest_differences([FILE], [], {FILE.path})) == []
    assert list(manifest_differences([], [FILE], {FILE.path})) == []


def test_tree_order_puts_children_right_behind_their_directory() -> None:
    wanted = ["/", "/a", "/a/b", "/a-b", "/a.b", "/b"]

    assert sorted(["/b", "/a.b", "/a-b", "/a/b", "/a", "/"], key=tree_order) == wanted


@given(st.lists(paths, unique=True), st.lists(paths, unique=True))
def test_merging_pairs_what_both_have(left: list[str], right: list[str]) -> None:
    left, right = sorted(left, key=tree_order), sorted(right, key=tree_order)
    pairs = list(merged_by_path(left, right, lambda path: path))

    assert [a for a, _ in pairs if a is not None] == left
    assert [b for _, b in pairs if b is not None] == right
    assert {a for a, b in pairs if a == b} == set(left) & set(right)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["{}\n"],
        ['{"manifest": 99}\n', '{"entries": 0}\n'],
        ['{"manifest": 1}\n', "not json\n", '{"entries": 1}\n'],
        ['{"manifest": 1}\n', entry_line(FILE), entry_line(FILE), '{"entries": 2}\n'],
        ['{"manifest": 1}\n', entry_line(FILE), '{"entries": 1}\n', entry_line(FILE)],
        ['{"manifest": 1}\n', entry_line(FILE)],
    ],
)
def test_damaged_manifests_are_refused(lines: list[str]) -> None:
    with pytest.raises(DamagedManifest):
        list(parsed_manifest(lines))


@pytest.mark.parametrize("path", ["etc/motd", "/etc/../root", "/a\0b"])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(DamagedManifest):
        parsed_entry(entry_line(replace(FILE, path=path)))
