"""An OpenSSH server of the tests' own on a loopback port, for drivers that only need a login."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from managed.domain.connections import Endpoint
from managed.domain.secrets import Secret
from tests.support.waiting import wait_until


def new_key(path: Path) -> str:
    """Make an ed25519 key pair at the path; returns the public key line without comment."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True
    )
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@contextmanager
def local_sshd(directory: Path) -> Iterator[Endpoint]:
    """Run sshd until the context ends; the endpoint logs in as the user who runs the tests."""
    host_key = new_key(directory / "host_key")
    public_key = new_key(directory / "user_key")
    (directory / "authorized_keys").write_text(public_key + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (directory / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {directory}/host_key\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\nPidFile none\nStrictModes no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        "Subsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    log = (directory / "sshd.log").open("wb")
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "sshd_config")], stderr=log
    )
    try:
        wait_until(lambda: _answers(port), timeout=20, what="the tests' sshd answers")
        yield Endpoint(
            address="127.0.0.1",
            port=port,
            user=pwd.getpwuid(os.getuid()).pw_name,
            host_key=host_key,
            private_key=Secret((directory / "user_key").read_text()),
        )
    finally:
        server.terminate()
        server.wait(timeout=10)
        log.close()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
