"""`managed backup-self` and `managed restore-self`, from one machine to a fresh one."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from managed.cli import REFUSED, run
from managed.domain.rescue import RescueSession
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.snapshots import account_of
from managed.drivers.s3 import S3Settings
from managed.lab.service import only_service
from managed.settings import settings
from managed.storage.vault import SealedVault, load_master_key
from managed.wiring import open_installation, prepare_installation
from tests.support.jobs import START, JobBench

pytestmark = pytest.mark.integration
PASSWORD = Secret("p" * 40)
Use = Callable[[Path], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Make this process one on the machine with that state folder."""

    def on(state: Path) -> None:
        monkeypatch.setenv("MANAGED_STATE_DIR", str(state))
        monkeypatch.setenv("MANAGED_RUNTIME_DIR", str(state / "run"))
        settings.cache_clear()

    yield on
    settings.cache_clear()


@pytest.fixture
def remote(bucket: S3Settings, objects: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a bucket elsewhere, with nothing in it."""
    monkeypatch.setenv("MANAGED_S3_ENDPOINT", bucket.endpoint)
    monkeypatch.setenv("MANAGED_S3_BUCKET", bucket.bucket)
    monkeypatch.setenv("MANAGED_S3_ACCESS_KEY", bucket.access_key.reveal())
    monkeypatch.setenv("MANAGED_S3_SECRET_KEY", bucket.secret_key.reveal())


@pytest.fixture
def first(use: Use, tmp_path: Path) -> Path:
    """The machine that will be lost: a server with a repository, one without, and a job."""
    state = tmp_path / "first"
    use(state)
    prepare_installation(settings())
    installation = open_installation(settings())
    bench = JobBench(installation.database)
    bench.add_server("2")
    vault = SealedVault(installation.database, load_master_key(settings().master_key), bench.clock)
    for purpose in (SecretPurpose.REPOSITORY_PASSWORD, SecretPurpose.GATEWAY_PASSWORD):
        vault.keep(bench.server_id, purpose, PASSWORD)
    bench.submit()
    installation.database.dispose()
    return state


@pytest.fixture
def second(first: Path, tmp_path: Path) -> Path:
    """A fresh machine with nothing but the master key."""
    keys = tmp_path / "second" / "keys"
    keys.mkdir(parents=True)
    shutil.copy(first / "keys" / "master.key", keys)
    return keys.parent


def put_into_rescue(name: str) -> None:
    """As a rescue job leaves the server of this name."""
    installation = open_installation(settings())
    server = installation.inventory.named(name)
    assert server is not None
    job_id = installation.queue.find()[0].job_id
    session = RescueSession(
        "s-1", server.server_id, job_id, "ssh-ed25519 AAAA", server.status, START
    )
    installation.sessions.open(session)
    installation.database.dispose()


@pytest.fixture
def managed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def command(*arguments: str) -> Any:
        assert run([*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return command


@pytest.mark.usefixtures("remote")
def test_from_one_machine_to_a_fresh_one(
    first: Path, second: Path, use: Use, managed: Callable[..., Any], objects: Any
) -> None:
    taken = managed("backup-self")
    listed = managed("backup-self", "--list")
    assert [(copy["name"], copy["problem"]) for copy in listed["items"]] == [(taken["name"], "")]
    assert listed["master_key"] == taken["master_key"]
    known, locked_out = (account_of(f"00000000-0000-4000-8000-{n:0>12}") for n in ("one", "2"))
    objects.put(f"manifests/{known}/{'a' * 64}/x.jsonl.gz", b"")
    objects.put("manifests/srv-stranger/x/y.jsonl.gz", b"")
    objects.put(f"repositories/{locked_out}/config", b"")

    use(second)
    restored = managed("restore-self")
    assert restored["manifest"]["name"] == taken["name"]
    assert [job["kind"] for job in restored["ended_jobs"]] == ["patch"]
    assert restored["newer_snapshots"] == {"one": 1}
    assert restored["unknown_accounts"] == ["srv-stranger"]
    assert restored["locked_out"] == ["2"]
    prepare_installation(settings())
    installation = open_installation(settings())
    assert installation.windows.pause() is not None
    server_id = installation.inventory.find()[1].server_id
    assert installation.vault.secret(server_id, SecretPurpose.GATEWAY_PASSWORD) == PASSWORD
    installation.database.dispose()
    assert settings().gateway_accounts.read_text().startswith(f"{account_of(server_id)}:{{SHA}}")


@pytest.mark.usefixtures("remote", "first")
def test_what_people_read_says_what_to_do(
    second: Path, use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    put_into_rescue("2")
    assert run(["backup-self"]) == 0
    assert "Keep that key elsewhere" in capsys.readouterr().out
    assert run(["backup-self", "--list"]) == 0
    assert "0.0 h" in capsys.readouterr().out
    use(second)
    assert run(["restore-self"]) == 0
    said = capsys.readouterr().out
    assert "had not begun" in said
    assert "2: was in a rescue session" in said
    assert "managed jobs submit 2 unrescue" in said
    assert "managed pause end" in said


@pytest.mark.usefixtures("remote", "first")
def test_a_filled_database_is_replaced_only_when_that_is_said(
    managed: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    name = managed("backup-self")["name"]
    assert run(["restore-self"]) == REFUSED
    assert "not empty" in capsys.readouterr().err
    assert run(["restore-self", "--replace", "--json"]) == REFUSED
    assert "--yes" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # They would stand between what the operator is to read.
        restored = managed("restore-self", "--replace", "--yes", "--from", name)
    assert Path(restored["set_aside"]).exists()


@pytest.mark.usefixtures("remote")
def test_a_key_that_does_not_open_the_secrets_makes_no_copy(
    first: Path,
    managed: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = managed("backup-self")["name"]
    wrong = first / "wrong.key"
    wrong.write_bytes(b"w" * 32)
    with monkeypatch.context() as patched:
        patched.setenv("MANAGED_MASTER_KEY_FILE", str(wrong))
        settings.cache_clear()
        assert run(["backup-self"]) == REFUSED
        assert "opens 0 of the 2 secrets" in capsys.readouterr().err
    settings.cache_clear()
    assert [copy["name"] for copy in managed("backup-self", "--list")["items"]] == [name]
    assert managed("restore-self", "--replace", "--yes")["manifest"]["name"] == name


@pytest.mark.usefixtures("remote", "first")
def test_while_the_service_is_up_or_without_the_key_nothing_is_restored(
    second: Path, use: Use, managed: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    managed("backup-self")
    with only_service(settings()):
        assert run(["restore-self", "--replace", "--yes"]) == REFUSED
    assert "a service uses" in capsys.readouterr().err
    use(second)
    (second / "keys" / "master.key").write_bytes(b"k" * 32)
    assert run(["restore-self"]) == REFUSED
    assert "another master key" in capsys.readouterr().err
    (second / "keys" / "master.key").unlink()
    assert run(["restore-self"]) == REFUSED
    assert "master key file" in capsys.readouterr().err
    assert not (second / "managed.db").exists()


def test_the_embedded_bucket_is_served_for_the_command(
    first: Path, second: Path, use: Use, managed: Callable[..., Any]
) -> None:
    name = managed("backup-self")["name"]
    shutil.copytree(first / "s3", second / "s3")
    use(second)
    assert managed("restore-self")["manifest"]["name"] == name
