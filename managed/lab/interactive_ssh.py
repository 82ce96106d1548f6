"""A person's SSH session on a server, with the key that is stored and the host key pinned."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from managed.domain.connections import Endpoint
from managed.domain.errors import Conflict, MissingRequirement

_ALIAS: Final = "managed-server"


def ssh_command(
    endpoint: Endpoint, key_file: Path, known_hosts: Path, command: Sequence[str]
) -> tuple[str, ...]:
    """OpenSSH's argv: this key and this host key, and nothing of the user's own configuration."""
    options = (
        f"IdentityFile={key_file}",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        f"UserKnownHostsFile={known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        f"HostKeyAlias={_ALIAS}",
        "PasswordAuthentication=no",
        "ServerAliveInterval=15",
        "LogLevel=ERROR",
    )
    return (
        *("ssh", "-F", "/dev/null", "-p", str(endpoint.port), "-l", endpoint.user),
        *(word for option in options for word in ("-o", option)),
        *("--", endpoint.address, *command),
    )


def interactive_ssh(endpoint: Endpoint, command: Sequence[str], runtime: Path) -> int:
    """Run ssh on this terminal; returns its exit status."""
    with _prepared(endpoint, command, runtime) as argv:
        return subprocess.run(argv, check=False).returncode


def answered_ssh(
    endpoint: Endpoint, command: Sequence[str], runtime: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command without input; what it wrote is text, and its status ssh's."""
    with _prepared(endpoint, command, runtime) as argv:
        return subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )


@contextmanager
def _prepared(
    endpoint: Endpoint, command: Sequence[str], runtime: Path
) -> Iterator[tuple[str, ...]]:
    """The argv; its key lies in a private folder of `runtime` (a tmpfs) as long as this lasts."""
    if shutil.which("ssh") is None:
        raise MissingRequirement("ssh is not installed", hint="apt-get install openssh-client")
    if not endpoint.host_key:
        raise Conflict("no host key of this server is known yet", hint="Wait for its create job.")
    runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="ssh-", dir=runtime) as directory:
        key_file, known_hosts = Path(directory) / "key", Path(directory) / "known_hosts"
        with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(endpoint.private_key.reveal())
        known_hosts.write_text(f"{_ALIAS} {endpoint.host_key}\n", encoding="ascii")
        yield ssh_command(endpoint, key_file, known_hosts, command)
