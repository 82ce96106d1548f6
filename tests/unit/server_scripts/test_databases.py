"""How databases are dumped, and what is recorded beside a dump."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from managed.server_scripts._database_dumps import (
    MYSQL_END,
    DumpRecord,
    read_record,
    record_path,
)
from managed.server_scripts._database_processes import unit_in
from managed.server_scripts._databases import (
    cluster_record,
    dump,
    files_outside,
    parsed_clusters,
)
from managed.server_scripts._run import ScriptFailed

RECORD = DumpRecord("mariadb", "all", "mariadb.service", "/var/lib/mysql", [], {})


def test_postgresql_clusters_are_read() -> None:
    text = "15 main 5432 online postgres /var/lib/postgresql/15/main /var/log/x\n"

    assert parsed_clusters(text) == [
        {
            "version": "15",
            "name": "main",
            "port": "5432",
            "status": "online",
            "owner": "postgres",
        }
    ]


@pytest.fixture
def old_dump(tmp_path: Path) -> Path:
    path = tmp_path / "mariadb.sql"
    path.write_text("old")
    return path


def test_a_complete_dump_replaces_the_old_one_and_has_a_record(old_dump: Path) -> None:
    result = dump(("echo", MYSQL_END.decode()), old_dump, RECORD)

    assert result["bytes"] == old_dump.stat().st_size == len(MYSQL_END) + 1
    for path in (old_dump, record_path(old_dump)):
        assert path.stat().st_mode & 0o777 == 0o600
    assert read_record(old_dump) == RECORD


@pytest.mark.parametrize("command", ["echo cut short", "echo '-- Dump completed'; exit 2"])
def test_a_failed_or_incomplete_dump_leaves_the_old_one(old_dump: Path, command: str) -> None:
    with pytest.raises(ScriptFailed, match="can't be dumped"):
        dump(("sh", "-c", command), old_dump, RECORD)

    assert old_dump.read_text() == "old"
    assert list(old_dump.parent.iterdir()) == [old_dump]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        json.dumps({**RECORD._asdict(), "kind": "oracle"}),
        json.dumps({**RECORD._asdict(), "data_directory": "mysql"}),
    ],
)
def test_a_dump_without_a_usable_record_is_refused(old_dump: Path, content: str | None) -> None:
    if content is not None:
        record_path(old_dump).write_text(content)

    with pytest.raises(ScriptFailed, match="record beside it can't be used") as caught:
        read_record(old_dump)
    assert caught.value.code == "evidence-missing"


def test_a_cluster_is_recorded_with_what_initdb_decides(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    settings = {
        "data_directory": str(tmp_path / "link"),
        "superuser": "admin",
        "data_checksums": True,
        "wal_segment_size": 16 << 20,
        "encoding": "UTF8",
        "tablespaces": ["/mnt/fast"],
        "template": {"oid": "4", "datcollate": "C", "datctype": "C", "daticulocale": None},
    }

    record = cluster_record("15", "main", settings)

    assert (record.kind, record.name) == ("postgresql", "15/main")
    assert record.unit == "postgresql@15-main.service"
    assert record.data_directory == os.path.realpath(tmp_path / "real")
    assert record.outside == ["/mnt/fast"]
    assert record.settings == {
        "superuser": "admin",
        "data_checksums": True,
        "wal_segment_size": 16 << 20,
        "encoding": "UTF8",
        "datcollate": "C",
        "datctype": "C",
    }


def test_innodb_files_elsewhere_are_found_among_open_files() -> None:
    files = [
        "/var/lib/mysql/ibdata1",
        "/var/lib/mysql/#innodb_redo/#ib_redo7",
        "/var/lib/mysql-fast/shop/orders.ibd",
        "/srv/log/ib_logfile0",
        "/srv/undo/undo001",
        "/srv/undo/undo_002",
        "/tmp/#287 (deleted)",
        "/usr/share/mysql/errmsg.sys",
        "socket:[12]",
    ]

    assert files_outside("/var/lib/mysql", files) == [
        "/srv/log/ib_logfile0",
        "/srv/undo/undo001",
        "/srv/undo/undo_002",
        "/var/lib/mysql-fast/shop/orders.ibd",
    ]


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/mariadb.service\n", "mariadb.service"),
        ("9:name=systemd:/system.slice/mysql.service\n8:pids:/\n0::/x\n", "mysql.service"),
        ("0::/system.slice/system-mariadb.slice/mariadb@a.service\n", "mariadb@a.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", ""),
    ],
)
def test_the_unit_of_a_process(cgroups: str, unit: str) -> None:
    assert unit_in(cgroups) == unit
