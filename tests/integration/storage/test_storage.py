"""Vault, inventory, sessions, catalogue and migrations on both databases."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine as Database
from sqlalchemy import create_engine, select, text

from managed.domain.errors import (
    AlreadyExists,
    EvidenceMissing,
    HostKeyChanged,
    MissingRequirement,
    NotFound,
    SecretUnreadable,
)
from managed.domain.events import NewEvent
from managed.domain.rescue import RescueSession
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.servers import ServerStatus
from managed.domain.snapshots import KeptObject, SnapshotRecord
from managed.storage import events as event_log
from managed.storage.catalogue import Catalogue
from managed.storage.database import DatabaseUnavailable, migrate, open_database, reading, writing
from managed.storage.schema import known_revisions, present_revision, upgrade
from managed.storage.sessions import SessionRecords
from managed.storage.tables import metadata, sealed_secrets, servers
from managed.storage.vault import SealedVault, create_master_key, load_master_key
from tests.support.control_plane import new_postgres_database
from tests.support.jobs import START, JobBench

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def bench(database: Database) -> JobBench:
    return JobBench(database)


def vault(database: Database, key: bytes = b"k" * 32) -> SealedVault:
    return SealedVault(database, key, lambda: datetime.now(UTC))


def test_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    migrate(database)
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        differences = [
            change
            for change in compare_metadata(context, metadata)
            if "events_default" not in str(change)
        ]
    assert differences == []


def test_a_database_that_a_newer_version_has_migrated_is_left_as_it_is(database: Database) -> None:
    version = text("UPDATE alembic_version SET version_num = :version")
    with database.connect() as connection:
        present = present_revision(connection)
    with writing(database) as connection:
        connection.execute(version, {"version": "9999"})
    migrate(database)
    with writing(database) as connection:
        assert present_revision(connection) == "9999"
        connection.execute(version, {"version": present})


def test_servers_of_before_are_under_management_since_they_were_created(tmp_path: Path) -> None:
    """But not those that are still being enrolled or created."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    server = (
        "INSERT INTO servers (id, name, origin, status, address, ssh_port, ssh_user, host_key,"
        " operating_system, created_at) VALUES (:id, :id, 'created', :status, '', 22, '', '', '',"
        " '2026-01-01 00:00:00.000000')"
    )
    session = (
        "INSERT INTO rescue_sessions (id, server_id, job_id, host_key, status_before, started_at)"
        " VALUES (:id, :id, 'its job', '', :before, '2026-01-01 00:00:00.000000')"
    )
    found = {"a": "active", "b": "broken", "c": "new", "d": "deleted", "e": "rescue", "f": "rescue"}
    with create_engine(url).begin() as connection:
        upgrade(connection, "0011")
        for name, status in found.items():
            connection.execute(text(server), {"id": name, "status": status})
        for name, before in (("e", "active"), ("f", "new")):
            connection.execute(text(session), {"id": name, "before": before})
    database = open_database(url)
    migrate(database)
    query = select(servers.c.id).where(servers.c.placed_since == servers.c.created_at)
    with reading(database) as connection:
        assert set(connection.scalars(query)) == {"a", "b", "e"}
    database.dispose()


@pytest.mark.integration
def test_parts_that_start_at_once_migrate_one_after_the_other(postgres_url: str) -> None:
    program = (
        "import sys; from managed.storage.database import *; migrate(open_database(sys.argv[1]))"
    )
    with new_postgres_database(postgres_url) as url:
        command = (sys.executable, "-c", program, url)
        started = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(3)]
        assert [process.wait(60) for process in started] == [0, 0, 0]
        database = open_database(url)
        with database.connect() as connection:
            assert present_revision(connection) == known_revisions()[0]
        database.dispose()


def test_events_are_partitioned_by_month_on_postgresql(bench: JobBench) -> None:
    bench.events.prepare_partitions(START)
    bench.events.prepare_partitions(START)
    job = bench.submit()
    assert bench.event_types(job) == ["job_submitted"]
    if bench.database.dialect.name == "postgresql":
        with bench.database.connect() as connection:
            query = text("SELECT count(*) FROM events_2026_03")
            assert connection.execute(query).scalar_one() == 1


def test_events_that_came_before_their_months_partition_are_moved_there(bench: JobBench) -> None:
    early = bench.submit()
    bench.events.prepare_partitions(START)
    with writing(bench.database) as connection:
        event_log.append(connection, early.job_id, [NewEvent(bench.clock(), "later", {})])
    assert bench.event_types(early) == ["job_submitted", "later"]
    if bench.database.dialect.name == "postgresql":
        query = text("SELECT tableoid::regclass::text FROM events")
        with bench.database.connect() as connection:
            assert connection.execute(query).scalars().all() == ["events_2026_03"] * 2


def test_partitions_wait_for_no_long_reader_and_come_at_the_next_try(
    bench: JobBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs would stand still behind a lock that waits."""
    if bench.database.dialect.name != "postgresql":
        pytest.skip("SQLite has no partitions")
    monkeypatch.setattr(event_log, "_LOCK_SECONDS", 1)
    job = bench.submit()
    with bench.database.connect() as reader:
        reader.execute(text("SELECT count(*) FROM events"))
        with pytest.raises(DatabaseUnavailable):
            bench.events.prepare_partitions(START)
    assert bench.event_types(job) == ["job_submitted"]
    bench.events.prepare_partitions(START)
    assert bench.event_types(job) == ["job_submitted"]


def test_a_secret_comes_back_and_is_not_plain_in_the_database(database: Database) -> None:
    kept = vault(database)
    kept.keep("server", SecretPurpose.LOGIN_KEY, Secret("first"))
    kept.keep("server", SecretPurpose.LOGIN_KEY, Secret("hunter2"))
    assert kept.secret("server", SecretPurpose.LOGIN_KEY).reveal() == "hunter2"
    with database.connect() as connection:
        (sealed,) = connection.execute(select(sealed_secrets.c.sealed)).one()
    assert b"hunter2" not in sealed
    kept.forget("server")
    with pytest.raises(NotFound):
        kept.secret("server", SecretPurpose.LOGIN_KEY)


def test_another_master_key_or_another_row_opens_nothing(database: Database) -> None:
    vault(database).keep("server", SecretPurpose.LOGIN_KEY, Secret("hunter2"))
    with pytest.raises(SecretUnreadable):
        vault(database, b"x" * 32).secret("server", SecretPurpose.LOGIN_KEY)
    with writing(database) as connection:
        connection.execute(sealed_secrets.update().values(owner="mallory"))
    with pytest.raises(SecretUnreadable):
        vault(database).secret("mallory", SecretPurpose.LOGIN_KEY)


def test_a_secret_made_on_demand_is_made_once(database: Database) -> None:
    kept = vault(database)
    purpose = SecretPurpose.REPOSITORY_PASSWORD
    assert kept.keep_once("server", purpose, Secret("one")).reveal() == "one"
    assert kept.keep_once("server", purpose, Secret("two")).reveal() == "one"


def test_the_master_key_is_made_once_for_nobody_else_to_read(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    create_master_key(path)
    key = load_master_key(path)
    create_master_key(path)
    assert load_master_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["master.key"]
    path.write_bytes(b"short")
    with pytest.raises(MissingRequirement):
        load_master_key(path)


def test_a_pinned_host_key_is_replaced_only_on_purpose(bench: JobBench) -> None:
    pin = bench.inventory.pin_host_key
    pin(bench.server_id, "key one", replacing="")
    pin(bench.server_id, "key one", replacing="")
    with pytest.raises(HostKeyChanged):
        pin(bench.server_id, "key two", replacing="")
    pin(bench.server_id, "key two", replacing="key one")
    assert bench.inventory.get(bench.server_id).host_key == "key two"


def test_a_name_is_free_again_when_its_server_is_deleted(bench: JobBench) -> None:
    first = bench.inventory.get(bench.server_id)
    second = replace(first, server_id=str(uuid.uuid4()))
    with pytest.raises(AlreadyExists), writing(bench.database) as connection:
        bench.inventory.add(connection, second, bench.clock())
    bench.inventory.set_status(first.server_id, ServerStatus.DELETED, START)
    with pytest.raises(NotFound):
        bench.inventory.get(first.server_id)
    with writing(bench.database) as connection:
        bench.inventory.add(connection, second, bench.clock())
    assert bench.inventory.by_name("one") == replace(second, created_at=bench.clock())


def test_parts_to_check_go_round(bench: JobBench) -> None:
    parts = []
    for _ in range(5):
        parts.append(bench.inventory.part_to_check(bench.server_id, 3))
        for _ in range(2):
            bench.inventory.part_checked(bench.server_id, parts[-1], 3)
    assert parts == [1, 2, 3, 1, 2]


def test_a_part_that_was_not_checked_stays_due(bench: JobBench) -> None:
    assert [bench.inventory.part_to_check(bench.server_id, 3) for _ in range(2)] == [1, 1]
    bench.inventory.part_checked(bench.server_id, 2, 3)
    assert bench.inventory.part_to_check(bench.server_id, 3) == 1


def test_a_server_has_one_open_rescue_session(bench: JobBench) -> None:
    sessions, job = SessionRecords(bench.database), bench.submit()
    first = RescueSession(
        session_id="one",
        server_id=bench.server_id,
        job_id=job.job_id,
        host_key="key",
        status_before=ServerStatus.ACTIVE,
        started_at=START,
        expires_at=START + timedelta(hours=1),
    )
    assert sessions.open(first) == first
    assert sessions.open(replace(first, session_id="two")) == first
    late = START + timedelta(hours=2)
    assert sessions.expired(late) == [], "a job works on the server"
    bench.workflow()
    bench.engine().run(job.job_id)
    assert sessions.expired(late) == [first]
    sessions.end("one", late)
    assert sessions.current(bench.server_id) is None
    assert sessions.open(replace(first, session_id="two")).session_id == "two"


def test_a_session_that_outlived_its_job_is_ended_by_the_clock(bench: JobBench) -> None:
    sessions, job = SessionRecords(bench.database), bench.submit()
    left = RescueSession("one", bench.server_id, job.job_id, "key", ServerStatus.ACTIVE, START)
    sessions.open(left)
    assert sessions.expired(START) == [], "its job goes on"
    bench.workflow()
    bench.engine().run(job.job_id)
    assert sessions.expired(START) == [left]

    sessions.keep_until("one", START + timedelta(hours=1))
    assert sessions.expired(START) == [], "people work in it now"
    assert sessions.expired(START + timedelta(hours=1)) != []
    bench.inventory.set_status(bench.server_id, ServerStatus.DELETED, START)
    assert sessions.expired(START + timedelta(hours=1)) == []


def test_snapshots_are_listed_newest_first_and_verified_later(bench: JobBench) -> None:
    catalogue, job = Catalogue(bench.database), bench.submit()
    for number, hours in (("a", 1), ("b", 2)):
        time = START + timedelta(hours=hours)
        kept = KeptObject("m", "0" * 64)
        record = SnapshotRecord(
            number, bench.server_id, job.job_id, time, 5, 7, kept, kept, health={"seen": number}
        )
        catalogue.add(record)
        catalogue.add(record)
    assert [r.snapshot_id for r in catalogue.of_server(bench.server_id)] == ["b", "a"]
    catalogue.mark_verified("a", {"paths": 5}, START)
    assert catalogue.get("a").verified_at == START
    assert catalogue.get("a").health == {"seen": "a"}
    assert catalogue.get("b").verified_at is None


def test_a_snapshot_on_record_is_no_other_jobs_and_has_no_other_evidence(bench: JobBench) -> None:
    catalogue, job = Catalogue(bench.database), bench.submit()
    kept = KeptObject("m", "0" * 64)
    record = SnapshotRecord(
        "a", bench.server_id, job.job_id, START, 5, 7, kept, kept, paths=("/etc", "/srv")
    )
    catalogue.add(record)
    catalogue.mark_verified("a", {"paths": 5}, START)
    catalogue.add(record)
    for other in (
        replace(record, job_id="another"),
        replace(record, manifest=KeptObject("m", "1" * 64)),
        replace(record, layout=KeptObject("l", "0" * 64)),
        replace(record, paths=()),
    ):
        with pytest.raises(EvidenceMissing):
            catalogue.add(other)
    assert catalogue.get("a").verified_at == START
    assert replace(catalogue.get("a"), verified_at=None, verification=None) == record
