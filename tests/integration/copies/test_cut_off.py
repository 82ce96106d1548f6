"""A backup or a restore that is cut off half-way, and copies that grow old."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import inspect

from managed.domain.copies import KeepRule
from managed.domain.errors import Conflict, CopyDamaged, NotFound, ObjectStoreUnavailable
from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.storage.copies.control_plane import ControlPlaneCopies
from managed.storage.copies.state import SelfBackupRecord
from managed.storage.database import reading
from tests.integration.copies.conftest import copies_of
from tests.support.control_plane import MASTER_KEY, PopulatedControlPlane, contents
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration
TWO_DAYS = KeepRule(timedelta(days=2), 0, 0)


@contextmanager
def half_way(what: str, database: Database, bucket: S3Settings) -> Iterator[None]:
    """A process that has come half-way; it is killed at the end."""
    given = {
        "endpoint": bucket.endpoint,
        "region": bucket.region,
        "bucket": bucket.bucket,
        "access_key": bucket.access_key.reveal(),
        "secret_key": bucket.secret_key.reveal(),
    }
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.support.copy_process", what, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(given).encode())
        process.stdin.close()
        try:
            assert process.stdout.readline() == b"half-way\n"
            yield
        finally:
            process.kill()


def test_a_killed_backup_leaves_no_copy_that_counts(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    bucket: S3Settings,
    objects: S3ObjectStore,
) -> None:
    good = copies.take().name
    with half_way("take", plane.database, bucket):
        pass
    (unfinished,) = [copy for copy in copies.list() if not copy.is_finished]
    assert objects.keys(f"control-plane/{unfinished.name}/part-")
    with pytest.raises(NotFound):
        copies.restore(unfinished.name, replace=True)
    assert copies.newest() == good
    assert copies.prune(TWO_DAYS) == ()
    # It was made by a clock that is right; the one here stands still in the past.
    plane.bench.clock.pass_time(days=400)
    assert copies.prune(TWO_DAYS) == (unfinished.name,)
    assert objects.keys(f"control-plane/{unfinished.name}/") == []
    assert copies.newest() == good


def test_a_killed_restore_has_changed_nothing_and_is_run_again(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    bucket: S3Settings,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    name = copies.take().name
    with half_way("restore", fresh, bucket), reading(fresh) as connection:
        assert inspect(connection).get_table_names() == []
    fresh.dispose()
    wait_until(
        lambda: restored(copies_of(fresh, objects, plane), name),
        timeout=30,
        what="the killed one's connection is gone",
    )
    assert contents(fresh)["jobs"] == contents(plane.database)["jobs"]


def restored(copies: ControlPlaneCopies, name: str) -> bool:
    """PostgreSQL takes a moment to see that the killed one is gone."""
    try:
        copies.restore(name, replace=False)
    except Conflict as error:
        if "other connections" not in error.message:
            raise
        return False
    return True


class FailingStore(S3ObjectStore):
    """A stand-in for a bucket that breaks, or spoils what is put: the real one until then."""

    fails_at = ""
    spoils_at = ""

    def put(self, key: str, content: bytes) -> None:
        if self.fails_at and key.endswith(self.fails_at):
            raise ObjectStoreUnavailable("the bucket is full")
        spoilt = self.spoils_at and key.endswith(self.spoils_at)
        super().put(key, content[:-1] + b"\0" if spoilt else content)


@pytest.mark.parametrize("place", ["part-000002", "manifest"])
def test_a_failure_is_on_record_until_the_next_success(
    place: str, plane: PopulatedControlPlane, bucket: S3Settings, objects: S3ObjectStore
) -> None:
    store = FailingStore(bucket)
    copies = ControlPlaneCopies(plane.database, store, MASTER_KEY, plane.bench.clock, 4000)
    good = copies.take().name
    store.fails_at = place
    plane.bench.clock.pass_time(hours=25)
    with pytest.raises(ObjectStoreUnavailable):
        copies.take()
    state = SelfBackupRecord(plane.database).state()
    assert (state.last_good, state.last_error) == (good, "the bucket is full")
    assert "the bucket is full" in str(state.problem(timedelta(days=1), plane.bench.clock()))
    assert [copy.name for copy in copies.list()] == [good]
    store.fails_at = ""
    good = copies.take().name
    state = SelfBackupRecord(plane.database).state()
    assert (state.last_good, state.last_error) == (good, "")


@pytest.mark.parametrize("place", ["part-000001", "manifest"])
def test_what_does_not_come_back_as_it_was_put_is_no_success(
    place: str, plane: PopulatedControlPlane, bucket: S3Settings, objects: S3ObjectStore
) -> None:
    store = FailingStore(bucket)
    store.spoils_at = place
    copies = ControlPlaneCopies(plane.database, store, MASTER_KEY, plane.bench.clock, 4000)
    with pytest.raises(CopyDamaged):
        copies.take()
    assert copies.list() == ()


def test_old_copies_go_by_the_rule(
    plane: PopulatedControlPlane, copies: ControlPlaneCopies, objects: S3ObjectStore
) -> None:
    names = []
    for _ in range(4):
        names.append(copies.take().name)
        plane.bench.clock.pass_time(days=1)
    assert copies.prune(TWO_DAYS) == (*names[:2],)
    assert [copy.name for copy in copies.list()] == names[2:]
    plane.bench.clock.pass_time(days=100)
    assert copies.prune(TWO_DAYS) == (names[2],)
    assert copies.prune(TWO_DAYS) == ()
