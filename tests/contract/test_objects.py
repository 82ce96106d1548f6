"""What every ObjectStore keeps, the fake and the real one (against an S3 server of the tests')."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from managed.domain.errors import InvalidInput, NotFound, ObjectStoreUnavailable
from managed.domain.secrets import Secret
from managed.drivers.fakes.objects import FakeObjectStore
from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.lab.ports import free_port
from managed.lab.s3_server import S3ServerSettings, s3_server_command, s3_server_environment
from managed.ports import ObjectStore
from tests.support.storage import s3_bucket


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    with s3_bucket(tmp_path_factory.mktemp("objects")) as settings:
        yield settings


@pytest.fixture(params=["fake", pytest.param("s3", marks=pytest.mark.integration)])
def objects(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "fake":
        return FakeObjectStore()
    store = S3ObjectStore(request.getfixturevalue("bucket"))
    for key in store.keys(""):
        store.delete(key)
    return store


def test_content_comes_back_as_it_was_put(objects: ObjectStore) -> None:
    objects.put("a/b c/ü.bin", b"\0\xff text")
    assert objects.get("a/b c/ü.bin") == b"\0\xff text"
    objects.put("a/b c/ü.bin", b"")
    assert objects.get("a/b c/ü.bin") == b""


def test_absent_objects(objects: ObjectStore) -> None:
    assert not objects.exists("none")
    objects.delete("none")
    with pytest.raises(NotFound):
        objects.get("none")
    with pytest.raises(NotFound):
        objects.move("none", "elsewhere")


def test_deleted_is_gone(objects: ObjectStore) -> None:
    objects.put("key", b"x")
    assert objects.exists("key")
    objects.delete("key")
    assert not objects.exists("key")
    assert objects.keys("") == []


def test_move_replaces_what_was_there(objects: ObjectStore) -> None:
    objects.put("from", b"new")
    objects.put("deep/er/to", b"old")
    objects.move("from", "deep/er/to")
    assert objects.get("deep/er/to") == b"new"
    assert objects.keys("") == ["deep/er/to"]


def test_a_large_object_can_be_moved(objects: ObjectStore) -> None:
    content = bytes(range(256)) * 48 * 1024  # 12 MiB: more than boto3 copies at once by itself
    objects.put("large", content)
    objects.move("large", "moved")
    assert objects.get("moved") == content


def test_keys_are_sorted_and_below_the_prefix(objects: ObjectStore) -> None:
    for key in ("p/b", "p/a/2", "q/c", "p/a/1"):
        objects.put(key, key.encode() * 2)
    assert objects.keys("p/") == ["p/a/1", "p/a/2", "p/b"]
    assert objects.sizes("p/a") == {"p/a/1": 10, "p/a/2": 10}
    assert objects.keys("none/") == []


def test_more_keys_than_a_page_holds(objects: ObjectStore) -> None:
    expected = [f"many/{number:04}" for number in range(1050)]
    for key in expected:
        objects.put(key, b"")
    assert objects.keys("many/") == expected


@pytest.mark.integration
def test_a_bucket_can_be_ensured_again_and_again(bucket: S3Settings) -> None:
    store = S3ObjectStore(replace(bucket, bucket="another-one"))
    store.ensure_bucket()
    store.put("key", b"kept")
    store.ensure_bucket()
    assert store.get("key") == b"kept"


@pytest.mark.integration
def test_the_bucket_outlives_its_last_object(bucket: S3Settings) -> None:
    store = S3ObjectStore(replace(bucket, bucket="soon-empty"))
    store.ensure_bucket()
    store.put("only", b"x")
    store.delete("only")
    store.put("next", b"y")
    assert store.keys("") == ["next"]


@pytest.mark.integration
def test_a_wrong_key_is_refused_and_says_so(bucket: S3Settings) -> None:
    store = S3ObjectStore(replace(bucket, secret_key=Secret("wrong-key-of-enough-characters")))
    with pytest.raises(ObjectStoreUnavailable, match="refused") as caught:
        store.get("anything")
    assert "wrong-key" not in str(caught.value.as_json())


@pytest.mark.integration
def test_a_dead_server_is_unavailable() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    secret = Secret("a-key-of-enough-characters")
    store = S3ObjectStore(S3Settings(endpoint, "us-east-1", "bucket", secret, secret), timeout=2)
    for call in (lambda: store.keys(""), lambda: store.move("a", "b"), store.ensure_bucket):
        with pytest.raises(ObjectStoreUnavailable) as caught:
            call()
        assert caught.value.retryable


def test_the_servers_keys_stay_out_of_its_command() -> None:
    secret = Secret("s" * 20)
    settings = S3ServerSettings(Path("/s3"), Path("/log"), 9000, Secret("a" * 20), secret)
    assert not any("ssss" in part or "aaaa" in part for part in s3_server_command(settings))
    assert s3_server_environment(settings)["RCLONE_AUTH_KEY"] == f'"{"a" * 20},{"s" * 20}"'


@pytest.mark.parametrize("key", ["short", "has,a,comma,and,is,long", 'has"a"quote"and"is"long'])
def test_keys_that_rclone_would_misread_are_refused(key: str) -> None:
    settings = S3ServerSettings(Path("/s3"), Path("/log"), 9000, Secret("a" * 20), Secret(key))
    with pytest.raises(InvalidInput):
        s3_server_environment(settings)
