"""Settings: wrong ones are named, children get the same ones, the demo only those of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from managed.domain.errors import InvalidInput
from managed.lab.demo_settings import demo_settings
from managed.settings import Settings, settings


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_a_wrong_setting_is_named_and_its_value_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MANAGED_LISTEN_PORT", "abc-secret")
    with pytest.raises(InvalidInput) as refused:
        settings()
    assert "MANAGED_LISTEN_PORT" in refused.value.message
    assert "MANAGED_LISTEN_PORT" in refused.value.hint
    assert "abc-secret" not in refused.value.message


def test_a_secret_may_stand_in_a_file_and_the_variable_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text("from a file\n")
    for name in ("S3_SECRET_KEY", "S3_ACCESS_KEY", "DATABASE_URL", "LISTEN_ADDRESS"):
        monkeypatch.setenv(f"MANAGED_{name}_FILE", str(file))
    monkeypatch.setenv("MANAGED_DATABASE_URL", "from the variable")
    found = Settings()
    assert found.s3_secret_key.get_secret_value() == "from a file"
    assert found.s3_access_key == "from a file"
    assert found.database_url == "from the variable"
    assert found.listen_address == "127.0.0.1", "what is no secret stands in no file"


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANAGED_BROKER_URL_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidInput, match="MANAGED_BROKER_URL_FILE"):
        settings()


def settings_in(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As a child reads them that gets this environment."""
    with monkeypatch.context() as child:
        for name in list(os.environ):
            child.delenv(name)
        for name, text in environment.items():
            child.setenv(name, text)
        return Settings()


def test_a_child_gets_the_settings_and_not_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANAGED_DATABASE_URL", "postgresql://production")
    monkeypatch.setenv("managed_s3_endpoint", "https://production")
    (tmp_path / "url").write_text("redis://production")
    monkeypatch.setenv("MANAGED_BROKER_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("ANOTHER_VARIABLE", "stays")
    ours = Settings(
        state_dir=tmp_path,
        images_dir=tmp_path / "images",
        database_url="",
        broker_url="filesystem://",
        s3_endpoint="",
        s3_secret_key=SecretStr("secret"),
        worker_processes=7,
        lease_seconds=4.5,
        gateway_socket=tmp_path / "socket",
    )
    environment = ours.environment()
    assert environment["ANOTHER_VARIABLE"] == "stays"
    assert "production" not in " ".join(environment.values())
    assert settings_in(environment, monkeypatch) == ours


def test_the_demo_works_in_no_other_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    production = {
        "STATE_DIR": str(tmp_path),
        "RUNTIME_DIR": "/run/production",
        "DATABASE_URL": "postgresql://production",
        "BROKER_URL": "redis://production",
        "MASTER_KEY_FILE": "/etc/production/master.key",
        "API_TOKEN_FILE": "/etc/production/token",
        "GATEWAY_SOCKET": "/run/production/gateway.sock",
        "GATEWAY_ACCOUNTS_FILE": "/etc/production/accounts",
        "S3_ENDPOINT": "https://production",
        "S3_BUCKET": "production",
        "S3_ACCESS_KEY": "production",
        "S3_SECRET_KEY": "production",
        "LIBVIRT_URI": "qemu+ssh://production/system",
        "LISTEN_ADDRESS": "192.0.2.1",
        "ACCELERATION": "tcg",
        "DEBIAN_MIRROR": "http://192.0.2.2/debian",
    }
    for name, text in production.items():
        monkeypatch.setenv(f"MANAGED_{name}", text)
    own = demo_settings(Settings())
    assert own.state == tmp_path / "demo" / "state"
    assert own.images == tmp_path / "images"
    assert (own.acceleration, own.debian_mirror) == ("tcg", "http://192.0.2.2/debian")
    for child in (own, settings_in(own.environment(), monkeypatch)):
        names = (child.runtime, child.database, child.broker_url, child.master_key, child.api_token)
        more = (child.gateway, child.gateway_accounts, child.s3_endpoint, child.s3_bucket)
        keys = (child.s3_access_key, child.s3_secret_key.get_secret_value(), child.libvirt_uri)
        assert "production" not in " ".join(map(str, (*names, *more, *keys)))
        assert child.listen_address == "127.0.0.1"
    assert not [name for name in own.environment() if name == "MANAGED_RUNTIME_DIR"]
