"""A populated control plane on either engine, a real bucket, and databases to restore into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine as Database

from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.storage.copies.control_plane import ControlPlaneCopies
from managed.storage.database import open_database
from tests.support.control_plane import (
    MASTER_KEY,
    PopulatedControlPlane,
    new_postgres_database,
)
from tests.support.copy_process import SMALL_PARTS
from tests.support.storage import s3_bucket


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    with s3_bucket(tmp_path_factory.mktemp("copies")) as settings:
        yield settings


@pytest.fixture
def objects(bucket: S3Settings) -> S3ObjectStore:
    store = S3ObjectStore(bucket)
    for key in store.keys(""):
        store.delete(key)
    return store


@pytest.fixture
def plane(database: Database) -> PopulatedControlPlane:
    return PopulatedControlPlane(database)


@pytest.fixture
def copies(plane: PopulatedControlPlane, objects: S3ObjectStore) -> ControlPlaneCopies:
    """Of the populated control plane; small parts, so that there are many."""
    return copies_of(plane.database, objects, plane)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that nobody has made anything in."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'fresh.db'}"
        return
    with new_postgres_database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def fresh(fresh_url: str) -> Iterator[Database]:
    engine = open_database(fresh_url)
    yield engine
    engine.dispose()


def copies_of(
    database: Database,
    objects: S3ObjectStore,
    plane: PopulatedControlPlane,
    master_key: bytes = MASTER_KEY,
) -> ControlPlaneCopies:
    return ControlPlaneCopies(database, objects, master_key, plane.bench.clock, SMALL_PARTS)
