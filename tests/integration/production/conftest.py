"""An installation as production has it: PostgreSQL, Redis, its parts as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from managed.settings import Settings
from managed.storage.database import open_database
from tests.support.parts import Parts, parts
from tests.support.postgres import empty
from tests.support.redis import RedisServer, redis
from tests.support.runtime import short_directory


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    with redis() as server:
        yield server


@pytest.fixture
def installed(tmp_path: Path, postgres_url: str, broker: RedisServer) -> Iterator[Parts]:
    """Embedded but for two settings."""
    database = open_database(postgres_url)
    empty(database)
    database.dispose()
    with short_directory() as runtime:
        settings = Settings(
            state_dir=tmp_path / "state",
            runtime_dir=runtime,
            database_url=postgres_url,
            broker_url=broker.url,
            s3_endpoint="http://127.0.0.1:1",
            s3_access_key="no-key-of-any-account",
            lease_seconds=6,
        )
        with parts(settings, tmp_path) as running:
            yield running
