"""/readyz with real parts that are taken away one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text

from api import readiness
from api.app import create_app
from managed.domain.errors import BrokerUnavailable
from managed.settings import Settings
from managed.storage.database import writing
from managed.wiring import Installation, open_installation, prepare_installation
from tests.support.postgres import postgres_cluster
from tests.support.storage import Storage, storage

pytestmark = pytest.mark.integration

ALL_WELL = {"database": "ok", "bucket": "ok", "gateway": "ok", "broker": "ok"}


@pytest.fixture(scope="module")
def place() -> Iterator[Storage]:
    with storage() as running:
        yield running


@dataclass
class Broker:
    """Stand-in for the question to the broker, which tests/…/test_broker.py asks real ones."""

    is_up: bool = True
    asked: int = 0
    hangs_until: threading.Event = field(default_factory=threading.Event)

    def require(self) -> None:
        self.asked += 1
        if not self.is_up:
            raise BrokerUnavailable("redis://:password@10.1.2.3 does not answer")


@dataclass
class Bench:
    installation: Installation
    broker: Broker
    client: TestClient

    def parts(self) -> dict[str, str]:
        """Each part's answer; those of a refusal are in its data."""
        answer = self.client.get("/readyz")
        document = answer.json()
        if answer.status_code == 200:
            assert document["status"] == "ready"
            return dict(document["parts"])
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert document["code"] == "unavailable"
        return dict(document["data"]["parts"])


def settings_for(place: Storage, folder: Path) -> Settings:
    return Settings(
        state_dir=folder / "state",
        runtime_dir=folder / "run",
        s3_endpoint=place.settings.endpoint,
        s3_bucket=place.settings.bucket,
        s3_access_key=place.settings.access_key.reveal(),
        s3_secret_key=SecretStr(place.settings.secret_key.reveal()),
        gateway_socket=place.gateway_settings.socket,
        gateway_accounts_file=place.gateway_settings.accounts_file,
    )


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request asks anew."""
    monkeypatch.setattr(readiness, "_FRESH_SECONDS", 0.0)


def bench_of(settings: Settings) -> Iterator[Bench]:
    prepare_installation(settings)
    installation = open_installation(settings)
    broker = Broker()
    app = create_app(installation, lambda _: None, {"broker": broker.require})
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Bench(installation, broker, client)
    broker.hangs_until.set()
    installation.database.dispose()


@pytest.fixture
def bench(place: Storage, tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(settings_for(place, tmp_path))


@pytest.fixture
def alone(place: Storage, tmp_path: Path) -> Iterator[Bench]:
    """Nobody at bucket and gateway."""
    nobody = {
        "s3_endpoint": "http://127.0.0.1:1",
        "gateway_socket": tmp_path / "nobody.sock",
    }
    yield from bench_of(settings_for(place, tmp_path).model_copy(update=nobody))


def test_ready_when_every_part_answers(bench: Bench) -> None:
    assert bench.parts() == ALL_WELL


def test_each_part_that_is_away_is_named_in_words_that_give_nothing_away(alone: Bench) -> None:
    alone.broker.is_up = False
    answer = alone.client.get("/readyz")
    assert answer.json()["detail"] == "not ready: bucket, gateway, broker"
    assert alone.parts() == {
        "database": "ok",
        "bucket": "The object store does not answer",
        "gateway": "The backup gateway does not answer",
        "broker": "The broker does not answer",
    }
    told = (
        "127.0.0.1",
        "10.1.2.3",
        "password",
        "nobody.sock",
        alone.installation.settings.s3_bucket,
    )
    assert not [secret for secret in told if secret in answer.text]


@pytest.mark.usefixtures("fresh")
def test_a_database_that_is_away_is_named_and_comes_back(place: Storage, tmp_path: Path) -> None:
    with postgres_cluster("-c fsync=off") as cluster:
        settings = settings_for(place, tmp_path).model_copy(update={"database_url": cluster.url})
        for bench in bench_of(settings):
            assert bench.parts() == ALL_WELL
            cluster.stop()
            assert bench.parts() == ALL_WELL | {"database": "The database does not answer"}
            answer = bench.client.get("/readyz")
            assert answer.json()["detail"] == "not ready: database"
            assert str(cluster.directory) not in answer.text
            cluster.start()
            assert bench.parts() == ALL_WELL


@pytest.mark.usefixtures("fresh")
def test_it_is_ready_again_when_the_part_is_back(bench: Bench) -> None:
    bench.broker.is_up = False
    assert bench.parts() == ALL_WELL | {"broker": "The broker does not answer"}
    bench.broker.is_up = True
    assert bench.parts() == ALL_WELL


def test_a_bucket_that_is_not_there_is_not_ok(place: Storage, tmp_path: Path) -> None:
    settings = settings_for(place, tmp_path).model_copy(update={"s3_bucket": "there-is-none"})
    for bench in bench_of(settings):
        assert bench.parts()["bucket"] != "ok"


@pytest.mark.usefixtures("fresh")
def test_the_schema_of_an_older_version_is_not_ok_and_a_newer_one_is(bench: Bench) -> None:
    behind = "the database has the schema of an older version"
    for version, answer in (("0001", behind), ("9999", "ok")):
        with writing(bench.installation.database) as connection:
            connection.execute(
                text("UPDATE alembic_version SET version_num = :version"), {"version": version}
            )
        assert bench.parts()["database"] == answer


def test_who_hammers_at_it_has_the_parts_asked_once(bench: Bench) -> None:
    assert [bench.parts() for _ in range(50)] == [ALL_WELL] * 50
    assert bench.broker.asked == 1


@pytest.mark.usefixtures("fresh")
def test_a_part_that_hangs_holds_one_thread_and_nobody_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_ASK_SECONDS", 0.2)
    asked = []

    def hang() -> None:
        asked.append("broker")
        bench.broker.hangs_until.wait(60)

    bench.client.app.state.readiness._probes["broker"] = hang  # type: ignore[attr-defined]
    for _ in range(3):
        assert bench.parts() == ALL_WELL | {"broker": "no answer within 0 seconds"}
    assert asked == ["broker"]
    assert bench.client.get("/healthz").status_code == 200
