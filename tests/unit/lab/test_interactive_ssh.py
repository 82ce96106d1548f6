from __future__ import annotations

from pathlib import Path

from managed.domain.connections import Endpoint
from managed.domain.secrets import Secret
from managed.lab.interactive_ssh import ssh_command

ENDPOINT = Endpoint("192.0.2.10", 2222, "root", "ssh-ed25519 AAAA", Secret("the private key"))


def test_ssh_trusts_the_pinned_key_alone() -> None:
    argv = ssh_command(ENDPOINT, Path("/run/x/key"), Path("/run/x/known_hosts"), ())
    assert "StrictHostKeyChecking=yes" in argv
    assert "UserKnownHostsFile=/run/x/known_hosts" in argv
    assert "GlobalKnownHostsFile=/dev/null" in argv
    assert argv[:3] == ("ssh", "-F", "/dev/null")


def test_neither_the_private_key_nor_an_option_gets_in_by_the_address() -> None:
    odd = Endpoint("-oProxyCommand=x", 22, "root", "ssh-ed25519 AAAA", Secret("the private key"))
    argv = ssh_command(odd, Path("/k"), Path("/h"), ("ls", "-l"))
    assert argv[-4:] == ("--", "-oProxyCommand=x", "ls", "-l")
    assert "the private key" not in " ".join(argv)
