"""restic's argv and environment."""

from __future__ import annotations

from pathlib import Path

from managed.domain.secrets import Secret
from managed.domain.snapshots import RepositoryAddress
from managed.drivers.restic.commands import (
    ResticSettings,
    check_command,
    content_command,
    files_command,
    init_command,
    restic_environment,
    snapshots_command,
    unlock_command,
)
from managed.drivers.s3 import S3Settings

STORE = S3Settings(
    "http://127.0.0.1:9000", "eu-1", "bucket", Secret("hidden-access"), Secret("hidden-key")
)
SETTINGS = ResticSettings(Path("/opt/restic"), Path("/cache"), STORE)
REPOSITORY = RepositoryAddress("srv-a", Secret("hidden-password"), "ab" * 32)


def test_no_secret_is_in_any_command() -> None:
    every = [
        init_command(SETTINGS),
        snapshots_command(SETTINGS, "key"),
        files_command(SETTINGS, "key", "id"),
        content_command(SETTINGS, "key", "id", "/path"),
        check_command(SETTINGS, "key", 1, 7),
        unlock_command(SETTINGS, "key"),
    ]
    assert not [part for command in every for part in command if "hidden" in part]


def test_the_environment_holds_what_opens_the_repository() -> None:
    environment = restic_environment(SETTINGS, REPOSITORY)
    assert environment["RESTIC_REPOSITORY"] == "s3:http://127.0.0.1:9000/bucket/repositories/srv-a"
    assert environment["RESTIC_PASSWORD"] == "hidden-password"
    assert environment["AWS_ACCESS_KEY_ID"] == "hidden-access"
    assert environment["AWS_SECRET_ACCESS_KEY"] == "hidden-key"
    assert environment["AWS_DEFAULT_REGION"] == "eu-1"


def test_the_providers_key_is_named() -> None:
    command = snapshots_command(SETTINGS, "ab" * 32)
    assert command[command.index("--key-hint") + 1] == "ab" * 32
    assert "--key-hint" not in snapshots_command(SETTINGS, "")


def test_a_part_of_all_data_is_read() -> None:
    assert "--read-data-subset=3/7" in check_command(SETTINGS, "", 3, 7)


def test_names_from_outside_are_no_options() -> None:
    assert content_command(SETTINGS, "", "-x", "--y")[-3:] == ("--", "-x", "--y")
    assert files_command(SETTINGS, "", "-x")[-2:] == ("--", "-x")


def test_only_stale_locks_are_removed() -> None:
    assert "--remove-all" not in unlock_command(SETTINGS, "")
