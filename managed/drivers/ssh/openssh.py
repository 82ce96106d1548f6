"""OpenSSH's client: its argv, the private files that it needs, what its complaints mean."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from managed.domain.connections import Endpoint
from managed.domain.errors import CommandFailed, ManagedError, MissingRequirement
from managed.drivers.ssh.failures import host_key_changed, login_refused, unreachable

_ALIAS: Final = "managed-server"


def openssh_options(private_directory: Path) -> tuple[str, ...]:
    """Options that trust the pinned key and offer the given key, and read nothing else."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlias": _ALIAS,
        "UserKnownHostsFile": str(private_directory / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentityFile": str(private_directory / "key"),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "UpdateHostKeys": "no",
        "ControlPath": "none",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    return ("-F", "none", *(f"-o{name}={value}" for name, value in options.items()))


def reverse_socket_command(
    endpoint: Endpoint, remote_socket: str, local_socket: str, private_directory: Path
) -> tuple[str, ...]:
    """ssh's argv for a reverse tunnel between two Unix sockets; it ends when it gets none."""
    return (
        "ssh",
        *openssh_options(private_directory),
        "-oExitOnForwardFailure=yes",
        "-N",
        "-T",
        f"-R{remote_socket}:{local_socket}",
        "-p",
        str(endpoint.port),
        "-l",
        endpoint.user,
        "--",
        endpoint.address,
    )


def fed_command(endpoint: Endpoint, command: str, private_directory: Path) -> tuple[str, ...]:
    """ssh's argv for a command line that reads its standard input."""
    return (
        "ssh",
        *openssh_options(private_directory),
        "-T",
        *("-p", str(endpoint.port)),
        *("-l", endpoint.user),
        "--",
        endpoint.address,
        command,
    )


@contextmanager
def private_files(endpoint: Endpoint) -> Iterator[Path]:
    """A directory in memory, ours alone, with the endpoint's `key` and `known_hosts`; it is
    removed at the end.
    """
    directory = Path(tempfile.mkdtemp(prefix="managed-ssh-", dir=_memory_directory(os.environ)))
    try:
        for name, content in (
            ("key", endpoint.private_key.reveal().rstrip("\n") + "\n"),
            ("known_hosts", f"{_ALIAS} {endpoint.host_key}\n"),
        ):
            handle = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(content)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def failure_of(endpoint: Endpoint, complaint: str) -> ManagedError:
    """What ssh meant by what it wrote before it ended."""
    name = endpoint.describe()
    if "Host key verification failed" in complaint:
        return host_key_changed(name)
    if "Permission denied" in complaint:
        return login_refused(name)
    if "forwarding failed" in complaint:
        return CommandFailed(
            f"{name} refuses to forward a Unix socket",
            hint="Backups need AllowStreamLocalForwarding in the server's sshd_config.",
            server=name,
        )
    return unreachable(name, complaint.strip()[-300:] or "ssh ended without a word")


def _memory_directory(environment: Mapping[str, str]) -> str:
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    in_memory = {line.split()[1] for line in mounts if line.split()[2] in ("tmpfs", "ramfs")}
    for place in (environment.get("XDG_RUNTIME_DIR", ""), "/run", "/dev/shm"):  # noqa: S108
        if place in in_memory and os.access(place, os.W_OK):
            return place
    raise MissingRequirement(
        "there is no writable directory in memory for SSH keys",
        hint="Mount a tmpfs at /dev/shm, or set XDG_RUNTIME_DIR to one.",
    )
