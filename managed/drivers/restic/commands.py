"""What is run: restic's argv and environment. Pure; no secret is ever part of an argv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from managed.domain.snapshots import RepositoryAddress
from managed.drivers.s3 import S3Settings

REPOSITORIES: Final = "repositories"


@dataclass(frozen=True)
class ResticSettings:
    """`cache_directory` belongs to us alone. `connections` at once to the bucket; `lock_patience`
    in seconds, how long a lock of somebody else's is waited for.
    """

    binary: Path
    cache_directory: Path
    store: S3Settings
    connections: int = 8
    lock_patience: int = 30


def repository_url(store: S3Settings, account: str) -> str:
    return f"s3:{store.endpoint}/{store.bucket}/{REPOSITORIES}/{account}"


def restic_environment(settings: ResticSettings, repository: RepositoryAddress) -> dict[str, str]:
    """Holds secrets: for the child process only."""
    return {
        "RESTIC_REPOSITORY": repository_url(settings.store, repository.account),
        "RESTIC_PASSWORD": repository.password.reveal(),
        "RESTIC_CACHE_DIR": str(settings.cache_directory),
        "RESTIC_PROGRESS_FPS": "0.2",
        "AWS_ACCESS_KEY_ID": settings.store.access_key.reveal(),
        "AWS_SECRET_ACCESS_KEY": settings.store.secret_key.reveal(),
        "AWS_DEFAULT_REGION": settings.store.region,
    }


def version_command(binary: Path) -> tuple[str, ...]:
    return (str(binary), "version", "--json")


def init_command(settings: ResticSettings) -> tuple[str, ...]:
    return (*_restic(settings), "init", "--repository-version", "2")


def snapshots_command(settings: ResticSettings, key_id: str) -> tuple[str, ...]:
    return (*_restic(settings, key_id), "snapshots")


def files_command(settings: ResticSettings, key_id: str, snapshot_id: str) -> tuple[str, ...]:
    return (*_restic(settings, key_id), "ls", "--", snapshot_id)


def content_command(
    settings: ResticSettings, key_id: str, snapshot_id: str, path: str
) -> tuple[str, ...]:
    return (*_restic(settings, key_id), "dump", "--", snapshot_id, path)


def check_command(settings: ResticSettings, key_id: str, part: int, parts: int) -> tuple[str, ...]:
    """Part n of t: after t runs with all parts everything was read, a percentage never says so."""
    return (*_restic(settings, key_id), "check", f"--read-data-subset={part}/{parts}")


def unlock_command(settings: ResticSettings, key_id: str) -> tuple[str, ...]:
    """Stale locks only, never --remove-all: that would take the locks of running backups too."""
    return (*_restic(settings, key_id), "unlock")


def _restic(settings: ResticSettings, key_id: str = "") -> tuple[str, ...]:
    """The key is named because restic tries 20 keys at most, and root on a server can add some."""
    return (
        *(str(settings.binary), "--json", "--retry-lock", f"{settings.lock_patience}s"),
        *("--option", "s3.bucket-lookup=path"),
        *("--option", f"s3.connections={settings.connections}"),
        *(("--key-hint", key_id) if key_id else ()),
    )
