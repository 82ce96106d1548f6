"""A control plane is lost but for bucket and master key, and comes back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import select, text

from managed.domain.audit import chain_problem
from managed.domain.copies import SelfBackupState
from managed.domain.errors import Conflict, CopyDamaged
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.secrets import SecretPurpose
from managed.drivers.s3 import S3ObjectStore
from managed.storage.audit import AuditLog
from managed.storage.copies.control_plane import ControlPlaneCopies
from managed.storage.copies.lines import kind_of
from managed.storage.copies.restoring import advance_sequences
from managed.storage.copies.state import SelfBackupRecord
from managed.storage.database import (
    migrate,
    open_database,
    reading,
    reading_snapshot,
    writing,
)
from managed.storage.events import EventLog
from managed.storage.job_queue import JobQueue
from managed.storage.schema import known_revisions, present_revision, upgrade
from managed.storage.tables import api_tokens, metadata, users
from managed.storage.vault import SealedVault
from managed.storage.windows import Windows
from tests.integration.copies.conftest import copies_of
from tests.support.control_plane import (
    LOGIN_KEY,
    MASTER_KEY,
    PopulatedControlPlane,
    contents,
    new_postgres_database,
)
from tests.support.jobs import START
from tests.support.other_schemas import as_of_schema, columns_at

CHANGED_BY_A_RESTORE = (
    "pause",
    "self_backup",
    "users",
    "api_tokens",
    "panel_sessions",
    "invitations",
    "audit_log",
    "audit_head",
)


@pytest.mark.integration
def test_everything_comes_back_on_either_engine(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    before = contents(plane.database, *CHANGED_BY_A_RESTORE)
    manifest = copies.take()
    assert manifest.parts > 3
    empty = [
        name for name, rows in contents(plane.database, "pause", "self_backup").items() if not rows
    ]
    assert empty == []
    restored = copies_of(fresh, objects, plane).restore(manifest.name, replace=False)
    assert contents(fresh, *CHANGED_BY_A_RESTORE) == before
    assert restored.manifest == manifest
    assert restored.ended_jobs == ()
    assert restored.set_aside == ""
    assert restored.in_rescue == ("3",)
    vault = SealedVault(fresh, MASTER_KEY, plane.bench.clock)
    assert vault.secret(plane.bench.server_id, SecretPurpose.LOGIN_KEY) == LOGIN_KEY
    assert_nobody_is_let_in(fresh)
    log = AuditLog(fresh)
    assert chain_problem(log.after(0), log.head()) is None
    assert [entry.deed.action for entry in log.find(limit=1)] == ["restore_self"]


def assert_nobody_is_let_in(database: Database) -> None:
    """What was revoked since the copy must not count again: users are there, and nothing else."""
    found = contents(database)
    assert found["users"]
    assert found["panel_sessions"] == found["invitations"] == []
    with database.connect() as connection:
        assert connection.execute(select(api_tokens.c.revoked_at)).scalars().all().count(None) == 0
        assert set(connection.execute(select(users.c.password_hash)).scalars()) == {None}


@pytest.mark.integration
def test_the_restored_one_is_paused_and_works_on(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    name = copies.take().name
    copies_of(fresh, objects, plane).restore(name, replace=False)
    pause = Windows(fresh).pause()
    assert pause is not None
    assert pause.by == "restore-self"
    assert "2026-03-29 01:30:00" in pause.reason
    assert SelfBackupRecord(fresh).state() == SelfBackupState(name, START, START, "")
    migrate(fresh)
    EventLog(fresh).prepare_partitions(START)
    with writing(fresh) as connection:
        Windows(fresh).end_pause(connection)
    assert copies_of(fresh, objects, plane).take().rows["jobs"] == 1


@pytest.mark.integration
def test_events_come_back_into_the_partitions_of_their_months(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    copies_of(fresh, objects, plane).restore(copies.take().name, replace=False)
    if fresh.dialect.name != "postgresql":
        pytest.skip("only PostgreSQL has partitions")
    with fresh.connect() as connection:
        found = connection.scalars(text("SELECT DISTINCT tableoid::regclass::text FROM events"))
        assert sorted(found) == ["events_2026_01", "events_2026_02", "events_2026_03"]


@pytest.mark.integration
def test_what_was_open_is_ended_and_nothing_is_sent(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    waiting = plane.waiting(plane.bench.server_id)
    in_line = plane.bench.submit(JobKind.RESCUE)
    running = plane.running(plane.second)
    queued = plane.bench.submit(JobKind.RESTORE, server_id=plane.third)
    name = copies.take().name
    plane.bench.clock.pass_time(hours=2)
    restored = copies_of(fresh, objects, plane).restore(name, replace=False)
    queue = JobQueue(fresh)
    for job, status, code in (
        (waiting, JobStatus.FAILED, "unknown-since-restore"),
        (running, JobStatus.FAILED, "unknown-since-restore"),
        (in_line, JobStatus.CANCELLED, "cancelled"),
        (queued, JobStatus.CANCELLED, "cancelled"),
    ):
        found = queue.job(job.job_id)
        assert (found.status, found.holds_server, found.lease) == (status, False, None)
        assert found.error is not None
        assert found.error["code"] == code
        assert "2026-03-29 01:30:00" in str(found.error["detail"])
        assert EventLog(fresh).after(job.job_id, 0)[-1].type == "job_ended"
    assert queue.to_send(plane.bench.clock(), timedelta(0)) == []
    assert {(job.server, job.had_begun) for job in restored.ended_jobs} == {
        ("one", True),
        ("one", False),
        ("2", True),
        ("3", False),
    }


@pytest.mark.integration
def test_a_copy_shows_one_moment_though_others_write(
    plane: PopulatedControlPlane, copies: ControlPlaneCopies
) -> None:
    with reading_snapshot(plane.database) as connection:
        before = connection.execute(text("SELECT count(*) FROM jobs")).scalar_one()
        plane.bench.submit(server_id=plane.second)
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == before
    assert copies.take().rows["jobs"] == before + 1


@pytest.mark.integration
def test_no_secret_and_no_name_is_readable_in_the_bucket(
    plane: PopulatedControlPlane, copies: ControlPlaneCopies, objects: S3ObjectStore
) -> None:
    copies.take()
    stored = b"".join(objects.get(key) for key in objects.keys(""))
    for readable in (b"servers", b"asa@example.org", b"PRIVATE", MASTER_KEY):
        assert readable not in stored


@pytest.mark.integration
def test_an_older_copy_is_brought_forward_and_a_newer_one_refused(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    known_then = columns_at("0002")
    later = metadata.tables.keys() - known_then.keys()
    before = contents(plane.database, "pause", *later)
    name = copies.take().name
    older = as_of_schema(objects, name, "0002", known_then)
    newer = as_of_schema(objects, name, "9999", known_then)
    target = copies_of(fresh, objects, plane)
    with pytest.raises(CopyDamaged, match="schema 9999") as refused:
        target.restore(newer, replace=False)
    assert "newer" in refused.value.hint
    target.restore(older, replace=False)
    with reading(fresh) as connection:
        assert present_revision(connection) == known_revisions()[0]
    assert contents(fresh, "pause", *later) == before


@pytest.mark.integration
def test_a_database_of_another_schema_is_not_copied(
    fresh: Database, plane: PopulatedControlPlane, objects: S3ObjectStore
) -> None:
    with writing(fresh) as connection:
        upgrade(connection, "0002")
    with pytest.raises(Conflict, match="schema 0002"):
        copies_of(fresh, objects, plane).take()
    assert objects.keys("control-plane/") == []


def test_every_column_is_of_a_kind_that_copies_know() -> None:
    for table in metadata.sorted_tables:
        for column in table.columns:
            kind_of(column)


@pytest.mark.integration
def test_numbers_that_the_database_gives_go_on_after_the_restored_ones(
    postgres_url: str,
) -> None:
    """No table has such a column yet; the first one that gets it must not start at 1 again."""
    with new_postgres_database(postgres_url) as url:
        engine = open_database(url)
        with writing(engine) as connection:
            connection.execute(text("CREATE TABLE numbered (id bigserial PRIMARY KEY, word text)"))
            connection.execute(text("INSERT INTO numbered (id, word) VALUES (41, 'restored')"))
            advance_sequences(connection, ["numbered"])
            given = text("INSERT INTO numbered (word) VALUES ('new') RETURNING id")
            assert connection.execute(given).scalar_one() == 42
        engine.dispose()
