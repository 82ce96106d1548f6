"""The clock backs the control plane up by itself, and tells when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from structlog.testing import capture_logs

from managed.drivers.s3 import S3Settings
from managed.settings import Settings
from managed.storage.vault import create_master_key
from managed.wiring import Installation
from tests.support.jobs import JobBench
from tests.support.storage import s3_bucket
from workers.self_backup import SelfBackup

pytestmark = pytest.mark.integration


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Settings]:
    with s3_bucket(tmp_path) as settings:
        yield settings


def installation(
    database: Database, bench: JobBench, bucket: S3Settings, tmp_path: Path, hours: float = 24
) -> Installation:
    settings = Settings(
        state_dir=tmp_path,
        s3_endpoint=bucket.endpoint,
        s3_bucket=bucket.bucket,
        s3_access_key=bucket.access_key.reveal(),
        s3_secret_key=SecretStr(bucket.secret_key.reveal()),
        self_backup_hours=hours,
        self_backup_keep_days=1,
        self_backup_keep_weeks=1,
    )
    create_master_key(settings.master_key)
    return Installation(settings, database, bench.clock)


def test_a_copy_is_taken_when_it_is_due_and_old_ones_go(
    database: Database, bucket: S3Settings, tmp_path: Path
) -> None:
    bench = JobBench(database)
    opened = installation(database, bench, bucket, tmp_path)
    duty = SelfBackup(opened)
    for _ in range(9):
        duty.start_if_due(bench.clock())
        duty.wait()
        bench.clock.pass_time(hours=12)
    times = [copy.manifest.taken_at for copy in opened.copies.list() if copy.manifest]
    assert [bench.clock() - taken for taken in times] == [
        timedelta(hours=hours) for hours in (60, 36, 12)
    ]
    assert opened.self_backup.state().problem(timedelta(days=1), bench.clock()) is None


def test_a_failure_is_told_and_the_next_try_comes_soon(
    database: Database, bucket: S3Settings, tmp_path: Path
) -> None:
    bench = JobBench(database)
    opened = installation(database, bench, bucket, tmp_path)
    opened.copies.take()
    bench.clock.pass_time(days=1)
    (tmp_path / "keys" / "master.key").unlink()
    broken = Installation(opened.settings, database, bench.clock)
    with capture_logs() as logs:
        duty = SelfBackup(broken)
        duty.start_if_due(bench.clock())
        duty.wait()
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("self_backup_failed", "error")
    ]
    state = broken.self_backup.state()
    assert "master key" in state.last_error
    assert "master key" in str(state.problem(timedelta(days=1), bench.clock()))


def test_without_a_bucket_or_with_no_hours_nothing_is_taken(
    database: Database, bucket: S3Settings, tmp_path: Path
) -> None:
    bench = JobBench(database)
    off = installation(database, bench, bucket, tmp_path, hours=0)
    for opened in (off, Installation(Settings(state_dir=tmp_path), database, bench.clock)):
        duty = SelfBackup(opened)
        duty.start_if_due(bench.clock())
        duty.wait()
        assert opened.self_backup.state().last_try_at is None
    assert off.copies.list() == ()
