"""What is damaged, strange or in the way is refused, and nothing is changed then."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import inspect, text

from managed.domain.copies import KeepRule
from managed.domain.errors import Conflict, CopyDamaged, NotFound, SecretUnreadable
from managed.domain.secrets import Secret, SecretPurpose
from managed.drivers.s3 import S3ObjectStore
from managed.storage.copies.control_plane import ControlPlaneCopies
from managed.storage.copies.state import SelfBackupRecord
from managed.storage.database import migrate, open_database
from managed.storage.vault import SealedVault
from tests.integration.copies.conftest import copies_of
from tests.support.control_plane import PopulatedControlPlane, contents
from tests.support.jobs import START, JobBench

pytestmark = pytest.mark.integration
NO_COPIES = KeepRule(timedelta(0), 0, 0)


def flip_a_bit(objects: S3ObjectStore, name: str) -> None:
    key = f"control-plane/{name}/part-000001"
    content = bytearray(objects.get(key))
    content[len(content) // 2] ^= 1
    objects.put(key, bytes(content))


def truncate(objects: S3ObjectStore, name: str) -> None:
    key = f"control-plane/{name}/part-000001"
    objects.put(key, objects.get(key)[:-1])


def swap_parts(objects: S3ObjectStore, name: str) -> None:
    first, second = (f"control-plane/{name}/part-00000{number}" for number in (1, 2))
    content = objects.get(first)
    objects.put(first, objects.get(second))
    objects.put(second, content)


def lose_the_last_part(objects: S3ObjectStore, name: str) -> None:
    objects.delete(objects.keys(f"control-plane/{name}/part-")[-1])


def flip_a_bit_of_the_manifest(objects: S3ObjectStore, name: str) -> None:
    key = f"control-plane/{name}/manifest"
    content = objects.get(key)
    objects.put(key, content[:-1] + bytes([content[-1] ^ 1]))


def change_the_salt(objects: S3ObjectStore, name: str) -> None:
    key = f"control-plane/{name}/manifest"
    content = bytearray(objects.get(key))
    content[30] ^= 1
    objects.put(key, bytes(content))


def empty_the_manifest(objects: S3ObjectStore, name: str) -> None:
    objects.put(f"control-plane/{name}/manifest", b"")


Damage = Callable[[S3ObjectStore, str], None]


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        truncate,
        swap_parts,
        lose_the_last_part,
        flip_a_bit_of_the_manifest,
        change_the_salt,
        empty_the_manifest,
    ],
)
def test_a_changed_copy_is_refused_and_leaves_the_database_as_it_was(
    damage: Damage,
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    name = copies.take().name
    damage(objects, name)
    target = copies_of(fresh, objects, plane)
    with pytest.raises(CopyDamaged, match=name):
        target.restore(name, replace=False)
    assert inspect(fresh).get_table_names() == []


def test_an_older_manifest_or_part_in_a_newer_copy_is_refused(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    older = copies.take().name
    plane.bench.clock.pass_time(hours=1)
    newer = copies.take().name
    target = copies_of(fresh, objects, plane)
    part = objects.get(f"control-plane/{newer}/part-000000")
    objects.put(
        f"control-plane/{newer}/part-000000", objects.get(f"control-plane/{older}/part-000000")
    )
    with pytest.raises(CopyDamaged, match="part 0"):
        target.restore(newer, replace=False)
    objects.put(f"control-plane/{newer}/part-000000", part)
    objects.put(f"control-plane/{newer}/manifest", objects.get(f"control-plane/{older}/manifest"))
    with pytest.raises(CopyDamaged, match="another copy's"):
        target.restore(newer, replace=False)
    assert {copy.name: bool(copy.manifest) for copy in target.list()} == {older: True, newer: False}


def test_another_master_key_is_told_by_its_mark(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    name = copies.take().name
    stranger = copies_of(fresh, objects, plane, master_key=b"s" * 32)
    with pytest.raises(SecretUnreadable, match=f"{copies.mark}.*{stranger.mark}"):
        stranger.restore(name, replace=False)
    assert "another master key" in stranger.list()[0].problem
    assert stranger.prune(NO_COPIES) == ()


def test_a_key_that_does_not_open_the_secrets_makes_no_copy(
    plane: PopulatedControlPlane, copies: ControlPlaneCopies, objects: S3ObjectStore
) -> None:
    good = copies.take().name
    stranger = copies_of(plane.database, objects, plane, master_key=b"s" * 32)
    plane.bench.clock.pass_time(hours=1)
    with pytest.raises(SecretUnreadable, match="opens 0 of the 3 secrets"):
        stranger.take()
    assert objects.keys("control-plane/") == objects.keys(f"control-plane/{good}/")
    assert copies.newest() == good
    problem = SelfBackupRecord(plane.database).state().problem(timedelta(days=1), START)
    assert problem is not None
    assert "opens 0 of the 3 secrets" in problem


def test_one_secret_that_does_not_open_makes_no_copy(
    plane: PopulatedControlPlane, copies: ControlPlaneCopies, objects: S3ObjectStore
) -> None:
    SealedVault(plane.database, b"s" * 32, plane.bench.clock).keep(
        plane.second, SecretPurpose.LOGIN_KEY, Secret("sealed while another key was in its place")
    )
    with pytest.raises(SecretUnreadable, match=f"opens 3 of the 4 .*{plane.second}/login-key"):
        copies.take()
    assert objects.keys("control-plane/") == []


def test_where_nothing_is_sealed_any_key_makes_a_copy(
    database: Database, objects: S3ObjectStore
) -> None:
    clock = JobBench(database).clock
    copies = ControlPlaneCopies(database, objects, b"s" * 32, clock)
    assert copies.take().rows["sealed_secrets"] == 0


def test_rows_in_the_way_are_refused(
    plane: PopulatedControlPlane, copies: ControlPlaneCopies
) -> None:
    before = contents(plane.database, "self_backup")
    name = copies.take().name
    plane.database.dispose()
    with pytest.raises(Conflict, match=r"not empty.*servers") as refused:
        copies.restore(name, replace=False)
    assert "--replace" in refused.value.hint
    assert contents(plane.database, "self_backup") == before


def test_a_schema_without_rows_is_not_in_the_way(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    name = copies.take().name
    migrate(fresh)
    copies_of(fresh, objects, plane).restore(name, replace=False)
    assert contents(fresh)["servers"] == contents(plane.database)["servers"]


def test_replaced_rows_are_set_aside(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    objects: S3ObjectStore,
) -> None:
    name = copies.take().name
    target = copies_of(fresh, objects, plane)
    target.restore(name, replace=False)
    ours = contents(fresh)
    plane.bench.clock.pass_time(minutes=5)
    restored = target.restore(name, replace=True)
    assert contents(fresh)["servers"] == ours["servers"]
    assert contents_set_aside(fresh, restored.set_aside) == ours


def contents_set_aside(database: Database, where: str) -> dict[str, list[tuple[object, ...]]]:
    if database.dialect.name == "sqlite":
        assert stat.S_IMODE(os.stat(where).st_mode) == 0o600
        aside = open_database(f"sqlite:///{where}")
    else:
        options = re.sub(r"\W", "", where)
        url = database.url.update_query_dict({"options": f"-csearch_path={options}"})
        aside = open_database(url.render_as_string(hide_password=False))
    try:
        return contents(aside)
    finally:
        aside.dispose()


def test_a_database_that_the_service_uses_is_left_alone(
    plane: PopulatedControlPlane,
    copies: ControlPlaneCopies,
    fresh: Database,
    fresh_url: str,
    objects: S3ObjectStore,
) -> None:
    if fresh.dialect.name != "postgresql":
        pytest.skip("on SQLite the lock of the state folder tells of a service")
    name = copies.take().name
    service = open_database(fresh_url)
    with service.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(Conflict, match="other connections"):
            copies_of(fresh, objects, plane).restore(name, replace=True)
    service.dispose()
    copies_of(fresh, objects, plane).restore(name, replace=False)


def test_there_is_no_copy(copies: ControlPlaneCopies) -> None:
    assert copies.list() == ()
    with pytest.raises(NotFound, match="no copy"):
        copies.newest()
    with pytest.raises(NotFound):
        copies.restore("20260101T000000Z-0123abcd", replace=False)
