"""What may be restored of files, and where to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from managed.domain.errors import InvalidInput, NotFound, NotSupported
from managed.domain.file_restores import (
    MOST_BYTES,
    PartSurvey,
    RestoreTarget,
    checked_paths,
    in_place_refusal,
    missing_paths,
    outermost,
    snapshot_for_files,
    source_refusal,
)
from managed.domain.manifest_listing import children
from managed.domain.manifest_parts import PathSet, directories_above, part_of
from managed.domain.manifests import EntryKind, ManifestEntry
from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.domain.snapshots import KeptObject, SnapshotRecord, snapshot_to_restore

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def entry(path: str, **fields: object) -> ManifestEntry:
    kind = EntryKind.DIRECTORY if path.endswith("/") else EntryKind.FILE
    made = ManifestEntry(path.rstrip("/") or "/", kind, 0o644, 0, 0, 0)
    return replace(made, **fields)  # type: ignore[arg-type]


TREE = [
    entry("/"),
    entry("/etc/"),
    entry("/etc/fstab", size=5),
    entry("/srv/"),
    entry("/srv/a", size=10),
    entry("/srv/site/"),
    entry("/srv/site/b", size=10, hard_link="/srv/a"),
    entry("/srv/site/c", size=10, hard_link="/srv/a"),
    entry("/srv/site/d", size=7),
    entry("/srv/site-2", size=1),
]


def server(name: str, customer_id: str | None = None) -> Server:
    return Server(
        server_id=name,
        name=name,
        origin=ServerOrigin.ENROLLED,
        status=ServerStatus.ACTIVE,
        address="192.0.2.1",
        ssh_port=22,
        ssh_user="root",
        host_key="",
        operating_system="",
        customer_id=customer_id,
    )


def record(name: str, hours: int, *paths: str, verified: bool = True) -> SnapshotRecord:
    kept = KeptObject("k", "0" * 64)
    time = NOON + timedelta(hours=hours)
    verified_at = time if verified else None
    return SnapshotRecord(name, "one", "job", time, 1, 1, kept, kept, verified_at, paths=paths)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "etc",
        "/",
        "//etc",
        "/etc/",
        "/etc/./x",
        "/etc/../x",
        "/proc",
        "/run/x",
        "/dev/sda",
        "/sys",
    ],
)
def test_what_is_no_plain_path_or_in_no_backup_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_paths(["/srv", path])
    assert refused.value.details["field"] == "paths"


def test_too_many_paths_and_too_long_ones_are_refused() -> None:
    for paths in ([], ["/a"] * 101, ["/" + "a" * MOST_BYTES]):
        with pytest.raises(InvalidInput):
            checked_paths(paths)


def test_paths_are_asked_for_once_and_brought_by_the_outermost() -> None:
    paths = checked_paths(["/srv/a", "/running", "/srv", "/srv/a", "/srv2"])
    assert paths == ("/running", "/srv", "/srv/a", "/srv2")
    assert outermost(paths) == ("/running", "/srv", "/srv2")


def test_a_path_covers_itself_and_what_is_below_it_alone() -> None:
    wanted = PathSet(["/srv/site", "/etc"])
    assert [e.path for e in TREE if wanted.covers(e.path)] == [
        *("/etc", "/etc/fstab", "/srv/site", "/srv/site/b", "/srv/site/c", "/srv/site/d")
    ]
    assert [e.path for e in TREE if wanted.leads_to(e.path)] == ["/", "/srv"]
    assert directories_above("/a/b/c") == ["/", "/a", "/a/b"]
    assert directories_above("/a") == ["/"]


def test_names_of_a_file_are_linked_to_the_first_one_that_is_restored() -> None:
    part = {e.path: e for e in part_of(TREE, PathSet(["/srv/site"]))}
    assert list(part) == ["/", "/srv", "/srv/site", *(f"/srv/site/{name}" for name in "bcd")]
    assert part["/srv/site/b"].hard_link == ""
    assert part["/srv/site/c"].hard_link == "/srv/site/b"
    whole = {e.path: e for e in part_of(TREE, PathSet(["/srv"]))}
    assert whole["/srv/site/c"].hard_link == "/srv/a"


def test_a_part_is_counted_and_what_it_lacks_is_named() -> None:
    survey = PartSurvey(["/srv/site", "/srv/site/gone", "/nowhere"])
    list(survey.part(TREE))
    assert (survey.entries, survey.size) == (4, 17)
    assert survey.missing == ["/srv/site/gone", "/nowhere"]
    assert survey.kinds == {"/srv/site": EntryKind.DIRECTORY}


def test_a_missing_path_is_an_error_that_names_near_ones() -> None:
    error = missing_paths(["/etc/fstap", "/x"], TREE)
    assert isinstance(error, NotFound)
    assert "'/etc/fstap' (and 1 more)" in error.message
    assert error.hint == "There is /etc/fstab."
    assert missing_paths(["/srv/fstab"], TREE).details["near"] == ["/etc/fstab"]
    assert missing_paths(["/zzz"], TREE).details["near"] == []


@pytest.mark.parametrize(
    "path", ["/var/lib/mysql", "/var/lib/postgresql/15/main/base", "/data", "/data/pg/base/1"]
)
def test_databases_are_never_restored_in_place(path: str) -> None:
    refusal = in_place_refusal([path], {"/data/pg"})
    assert isinstance(refusal, NotSupported)
    assert path in refusal.message
    assert "dumps" in refusal.hint


def test_what_is_beside_a_database_is_restored_in_place() -> None:
    assert in_place_refusal(["/var/lib", "/srv", "/var/lib/mysql-files"], {"/data/pg"}) is None


def test_data_directories_are_known_by_their_files() -> None:
    survey = PartSurvey(["/srv"])
    marks = ["/data/pg/global/pg_control", "/var/lib/mysql/ibdata1"]
    list(survey.part([*TREE, *map(entry, marks)]))
    assert survey.data_directories == {"/data/pg", "/var/lib/mysql"}


def test_files_go_to_servers_of_the_same_customer_alone() -> None:
    for one, other in ((None, "anna"), ("anna", None), ("anna", "bob")):
        assert source_refusal(server("a", one), server("b", other)) is not None
    for both in (None, "anna"):
        assert source_refusal(server("a", both), server("b", both)) is None


def test_a_safety_snapshot_is_taken_by_name_alone() -> None:
    records = [record("old", -2), record("new", -1), record("safety", 0, "/etc")]
    records.append(record("unverified", 1, verified=False))

    def chosen(snapshot_id: str | None, as_of: datetime | None = None) -> str | None:
        found = snapshot_for_files(records, snapshot_id, as_of)
        return found.snapshot_id if found else None

    assert chosen(None) == "new"
    assert chosen(None, NOON - timedelta(hours=2)) == "old"
    assert chosen("safety") == "safety"
    assert chosen("unverified") is None
    whole = snapshot_to_restore(records, None)
    assert whole is not None
    assert whole.snapshot_id == "new"


def test_each_target_has_a_folder_of_the_jobs_own() -> None:
    folders = {target.folder("job") for target in RestoreTarget}
    assert folders == {"/var/restored/job", "/var/lib/managed/restores/job"}


def test_a_folder_is_listed_page_by_page() -> None:
    def names(folder: str, after: str | None = None, most: int = 9) -> list[str]:
        return [e.path for e in children(TREE, folder, after, most)]

    assert names("/") == ["/etc", "/srv"]
    assert names("/srv") == ["/srv/a", "/srv/site", "/srv/site-2"]
    assert names("/srv", "/srv/a", 1) == ["/srv/site"]
    assert names("/srv", "/srv/site-2") == []
    for odd in ("/srv/a", "/srv/gone"):
        with pytest.raises(NotFound):
            names(odd)
