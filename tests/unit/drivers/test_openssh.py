"""OpenSSH's argv and what its complaints mean."""

from __future__ import annotations

import stat

import pytest

from managed.domain.connections import Endpoint
from managed.domain.errors import CommandFailed, HostKeyChanged, LoginRefused, ServerUnreachable
from managed.domain.secrets import Secret
from managed.drivers.ssh.commands import remote_command
from managed.drivers.ssh.openssh import failure_of, private_files, reverse_socket_command

ENDPOINT = Endpoint("192.0.2.1", 22, "root", "ssh-ed25519 AAAAC3", Secret("the key"))


def test_the_key_is_in_private_files_only_and_they_are_removed() -> None:
    with private_files(ENDPOINT) as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "key").stat().st_mode) == 0o600
        assert (directory / "key").read_text() == "the key\n"
        assert (directory / "known_hosts").read_text() == "managed-server ssh-ed25519 AAAAC3\n"
        argv = reverse_socket_command(ENDPOINT, "/run/a.sock", "/tmp/b.sock", directory)
    assert not directory.exists()
    assert not any("the key" in word for word in argv)
    assert argv[-2:] == ("--", "192.0.2.1")
    assert "-oStrictHostKeyChecking=yes" in argv


@pytest.mark.parametrize(
    ("complaint", "error"),
    [
        (
            "@@@ REMOTE HOST IDENTIFICATION HAS CHANGED\nHost key verification failed.",
            HostKeyChanged,
        ),
        ("root@192.0.2.1: Permission denied (publickey).", LoginRefused),
        ("Error: remote port forwarding failed for listen path /run/a.sock", CommandFailed),
        ("ssh: connect to host 192.0.2.1 port 22: No route to host", ServerUnreachable),
        ("", ServerUnreachable),
    ],
)
def test_complaints_become_our_errors(complaint: str, error: type[Exception]) -> None:
    assert type(failure_of(ENDPOINT, complaint)) is error


def test_remote_commands_are_quoted_and_end_by_themselves() -> None:
    quoted = remote_command(["echo", "a b", "$x"], 1.2)
    assert quoted == "timeout --signal=KILL 3 echo 'a b' '$x'"
