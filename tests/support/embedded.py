"""Looking into a running embedded service from outside."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import SecretStr

from managed.drivers.processes import running_processes
from managed.settings import Settings


def argv_of(pid: int) -> list[bytes]:
    """The command line of a process; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def parts_of(service_pid: int, words: bytes) -> list[int]:
    """The direct children of the service that have these words on their command line."""
    return [
        process.pid
        for process in running_processes()
        if process.parent == service_pid and words in b" ".join(argv_of(process.pid))
    ]


def environment_of(pid: int) -> bytes:
    """The environment that a process was started with; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def processes_of(settings: Settings) -> dict[int, bytes]:
    """The command line of every process here that names this installation's folders, there or in
    its environment: its parts, their children, their children's survivors, its guests.
    """
    marks = [str(folder).encode() for folder in (settings.state, settings.runtime)]
    found = {}
    for process in running_processes():
        command = b" ".join(argv_of(process.pid))
        if any(mark in command or mark in environment_of(process.pid) for mark in marks):
            found[process.pid] = command
    return found


def with_embedded_storage(settings: Settings, service_pid: int) -> Settings:
    """The settings that the service gives to its parts: with the S3 server that it has started."""
    keys = json.loads((settings.keys / "s3.json").read_text())
    server = argv_of(parts_of(service_pid, b"serve s3")[0])
    return settings.model_copy(
        update={
            "s3_endpoint": f"http://{server[server.index(b'--addr') + 1].decode()}",
            "s3_access_key": keys["access_key"],
            "s3_secret_key": SecretStr(keys["secret_key"]),
        }
    )
