"""Secrets of a detached run, on their way from the connection to the script.

They pass through a 0600 file in memory, which is gone before the script starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

RUN = "/run"


def secrets_file(run_id: str) -> str:
    return os.path.join(RUN, "managed", "secrets", run_id)


def require_memory() -> None:
    """End the program unless /run is in memory: secrets never reach a disk."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        kinds = {line.split()[1]: line.split()[2] for line in mounts}
    if kinds.get(RUN) not in ("tmpfs", "ramfs"):
        sys.exit(f"{RUN} is not in memory; there is no place for secrets")


def put_secrets(run_id: str, secrets: dict[str, str]) -> None:
    require_memory()
    path = secrets_file(run_id)
    for directory in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path)):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.chmod(directory, 0o700)
    drop_secrets(run_id)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(secrets, file)


def take_secrets(run_id: str) -> dict[str, str]:
    path = secrets_file(run_id)
    with open(path, encoding="utf-8") as file:
        os.unlink(path)
        secrets: dict[str, str] = json.load(file)
    return secrets


def drop_secrets(run_id: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(secrets_file(run_id))
