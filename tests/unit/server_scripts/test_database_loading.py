"""What loading a dump decides before and around its effects."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from managed.server_scripts import _database_directories
from managed.server_scripts._database_directories import DataDirectory, needed_space
from managed.server_scripts._database_dumps import DumpRecord
from managed.server_scripts._database_servers import complaint_in
from managed.server_scripts._mysql_loading import (
    MysqlServer,
    mysql_install_command,
    mysql_kept,
    mysqld_command,
)
from managed.server_scripts._postgresql_loading import (
    PostgresqlCluster,
    initdb_command,
    postgres_command,
    postgresql_kept,
    without_superuser,
)
from managed.server_scripts._run import ScriptFailed

SETTINGS: dict[str, Any] = {
    "superuser": "postgres",
    "data_checksums": False,
    "wal_segment_size": 16 << 20,
    "encoding": "UTF8",
    "datcollate": "de_DE.UTF-8",
    "datctype": "de_DE.UTF-8",
    "datlocprovider": "c",
}
DIRECTORY = Path("/var/lib/postgresql/15/main")


def initdb(version: int, group_access: bool = False, **changes: Any) -> tuple[str, ...]:
    programs = f"/usr/lib/postgresql/{version}/bin"
    return initdb_command(programs, DIRECTORY, {**SETTINGS, **changes}, group_access)


def test_a_new_cluster_is_made_like_the_old_one() -> None:
    assert initdb(15) == (
        "/usr/lib/postgresql/15/bin/initdb",
        "--pgdata=/var/lib/postgresql/15/main",
        "--no-sync",
        "--username=postgres",
        "--encoding=UTF8",
        "--lc-collate=de_DE.UTF-8",
        "--lc-ctype=de_DE.UTF-8",
        "--wal-segsize=16",
    )


def test_checksums_are_as_they_were_whatever_the_version_does_by_default() -> None:
    assert "--data-checksums" in initdb(15, data_checksums=True)
    assert not {"--data-checksums", "--no-data-checksums"} & set(initdb(17))
    assert "--no-data-checksums" in initdb(18)


def test_old_versions_get_no_words_that_they_do_not_know() -> None:
    command = initdb_command("/usr/lib/postgresql/9.6/bin", DIRECTORY, SETTINGS, True)

    assert not any(word.startswith("--wal-segsize") for word in command)
    assert "--allow-group-access" not in command


def test_a_group_that_could_read_the_files_still_can() -> None:
    assert "--allow-group-access" in initdb(15, group_access=True)


def test_locales_of_other_providers() -> None:
    icu = initdb(16, datlocprovider="i", daticulocale="de", daticurules="&a < b")
    builtin = initdb(17, datlocprovider="b", datlocale="C.UTF-8")

    assert icu[7:10] == ("--locale-provider=icu", "--icu-locale=de", "--icu-rules=&a < b")
    assert builtin[7:9] == ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")


def test_while_it_is_loaded_postgresql_is_for_us_alone() -> None:
    command = postgres_command("/bin", DIRECTORY, "/etc/postgresql/15/main/postgresql.conf")

    assert "listen_addresses=" in command
    assert f"unix_socket_directories={DIRECTORY}" in command
    assert f"hba_file={DIRECTORY}/managed-load-hba.conf" in command
    assert "archive_mode=off" in command
    assert "max_worker_processes=0" in command


def test_files_that_initdb_does_not_make_are_kept_but_not_traces_of_the_old_server() -> None:
    old = ["PG_VERSION", "base", "postgresql.auto.conf", "server.key", "postmaster.pid"]
    old += ["backup_label", "log", "postmaster.opts", "pg_hba.conf"]

    assert postgresql_kept(old, ["PG_VERSION", "base", "global"]) == [
        "log",
        "pg_hba.conf",
        "postgresql.auto.conf",
        "server.key",
    ]


@pytest.mark.parametrize(("role", "written"), [("postgres", "postgres"), ('O"dd', '"O""dd"')])
def test_only_the_role_that_is_there_already_is_neither_dropped_nor_created(
    role: str, written: str
) -> None:
    dump = (
        f"DROP ROLE IF EXISTS {written};\nDROP ROLE IF EXISTS shop;\n"
        f"CREATE ROLE {written};\nALTER ROLE {written} WITH SUPERUSER;\nCREATE ROLE shop;\n"
        f"\\connect shop\nCOPY texts FROM stdin;\nCREATE ROLE {written};\n\\.\nlast"
    )

    fed = b"".join(without_superuser(io.BytesIO(dump.encode()), role)).decode()

    assert fed == (
        f"DROP ROLE IF EXISTS shop;\nALTER ROLE {written} WITH SUPERUSER;\nCREATE ROLE shop;\n"
        f"\\connect shop\nCOPY texts FROM stdin;\nCREATE ROLE {written};\n\\.\nlast"
    )


def cluster(tmp_path: Path, outside: list[str]) -> PostgresqlCluster:
    record = DumpRecord("postgresql", "15/main", "unit", str(tmp_path), outside, SETTINGS)
    return PostgresqlCluster(record, tmp_path)


def test_clusters_that_a_dump_alone_does_not_make_anew_are_left(tmp_path: Path) -> None:
    assert cluster(tmp_path, []).limitation(tmp_path) is None
    assert "/mnt/fast" in str(cluster(tmp_path, ["/mnt/fast"]).limitation(tmp_path))
    (tmp_path / "standby.signal").touch()
    assert "standby" in str(cluster(tmp_path, []).limitation(tmp_path))
    (tmp_path / "pg_wal").symlink_to("/mnt/wal")
    assert "write-ahead log" in str(cluster(tmp_path, []).limitation(tmp_path))


def test_a_mysql_server_with_files_elsewhere_is_left(tmp_path: Path) -> None:
    record = DumpRecord("mysql", "all", "unit", "/d", ["/srv/ibdata1"], {"program": "/bin/true"})

    assert "/srv/ibdata1" in str(MysqlServer(record, tmp_path).limitation(tmp_path))


def test_new_files_of_mariadb_and_of_mysql() -> None:
    place = Path("/var/lib/mysql")
    mariadb = mysql_install_command("/usr/sbin/mariadbd", place, "mysql", is_mariadb=True)
    mysql = mysql_install_command("/usr/sbin/mysqld", place, "mysql", is_mariadb=False)

    assert mariadb[0] == "mariadb-install-db"
    assert "--auth-root-authentication-method=socket" in mariadb
    assert mysql == (
        "/usr/sbin/mysqld",
        "--user=mysql",
        "--datadir=/var/lib/mysql",
        "--initialize-insecure",
    )


def test_while_it_is_loaded_mariadb_is_for_us_alone() -> None:
    command = mysqld_command("/usr/sbin/mariadbd", Path("/var/lib/mysql"))

    assert "--socket=/var/lib/mysql/managed-load.sock" in command
    assert {"--skip-networking", "--skip-log-bin", "--event-scheduler=OFF"} <= set(command)


def test_of_mysqls_files_its_identity_and_certificates_are_kept() -> None:
    old = ["ibdata1", "auto.cnf", "ca.pem", "debian-10.11.flag", "shop", "mysql_upgrade_info"]

    assert mysql_kept(old) == ["auto.cnf", "ca.pem", "debian-10.11.flag", "mysql_upgrade_info"]


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("", "it said nothing"),
        ("one\ntwo\n", "two"),
        (
            "psql:<stdin>:7: ERROR:  syntax error\nLINE 1: x\n",
            "psql:<stdin>:7: ERROR:  syntax error",
        ),
        ("LOG: a\nFATAL: could not load\nLOG: shut down\n", "FATAL: could not load"),
    ],
)
def test_what_a_program_complained_about(tmp_path: Path, said: str, complaint: str) -> None:
    (tmp_path / "log").write_text(said)

    assert complaint_in(tmp_path / "log") == complaint


# ------------------------------------------------------------------------ the directories


@pytest.fixture
def place(tmp_path: Path) -> Iterator[DataDirectory]:
    directory = tmp_path / "main"
    directory.mkdir(mode=0o750)
    (directory / "content").write_text("old")
    yield DataDirectory(directory)
    assert not (tmp_path / "main.discarded").exists()


def replaced(place: DataDirectory) -> DataDirectory:
    place.move_aside()
    (place.path / "content").write_text("new")
    return place


def names(place: DataDirectory) -> list[str]:
    return sorted(path.name for path in place.path.parent.iterdir())


def test_a_directory_that_is_moved_aside_leaves_an_empty_one_to_its_owner_alone(
    place: DataDirectory,
) -> None:
    place.move_aside()

    assert place.is_unfinished
    assert list(place.path.iterdir()) == []
    assert place.path.stat().st_mode & 0o777 == 0o700
    assert (place.old_files / "content").read_text() == "old"


def test_what_is_put_back_is_as_it_was(place: DataDirectory) -> None:
    replaced(place).put_back()
    place.clear()

    assert (place.path / "content").read_text() == "old"
    assert names(place) == ["main"]


def test_putting_back_where_nothing_was_moved_changes_nothing(place: DataDirectory) -> None:
    place.put_back()
    place.clear()

    assert (place.path / "content").read_text() == "old"


def test_a_load_that_died_between_moving_and_making_is_undone(place: DataDirectory) -> None:
    place.move_aside()
    place.path.rmdir()

    place.put_back()

    assert (place.path / "content").read_text() == "old"


def test_new_files_that_are_kept_get_the_old_mode_and_the_old_ones_go(
    place: DataDirectory,
) -> None:
    replaced(place).take_over_mode()
    place.keep_new()

    assert (place.path / "content").read_text() == "new"
    assert place.path.stat().st_mode & 0o777 == 0o750
    assert names(place) == ["main"]


def test_rubbish_of_an_earlier_run_stands_in_no_ones_way(place: DataDirectory) -> None:
    place.discarded.mkdir()
    (place.discarded / "rubbish").touch()
    replaced(place).put_back()
    place.discarded.mkdir(exist_ok=True)
    replaced(place).keep_new()

    assert (place.path / "content").read_text() == "new"


def test_old_files_are_taken_over_in_place_of_new_ones(place: DataDirectory) -> None:
    replaced(place).take_over(["content"])
    place.keep_new()

    assert (place.path / "content").read_text() == "old"


def test_a_full_disk_is_seen_before_anything_is_touched(
    place: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.require_space(dump_size=1)
    monkeypatch.setattr(_database_directories, "SPACE_BESIDE_THE_DUMP", 1 << 60)

    with pytest.raises(ScriptFailed, match="MiB are free"):
        place.require_space(dump_size=1)
    assert needed_space(7) == (1 << 60) + 7


def test_a_filesystem_of_its_own_is_not_moved_aside() -> None:
    assert "filesystem of its own" in str(DataDirectory(Path("/proc")).limitation())
