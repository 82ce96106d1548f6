"""SSH keys: new ones, and the public half of one."""

from __future__ import annotations

import asyncssh

from managed.domain.connections import KeyPair
from managed.domain.secrets import Secret


def new_key_pair() -> KeyPair:
    """A fresh ed25519 pair, for logins or as a server's host key."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return KeyPair(
        private_key=Secret(key.export_private_key("openssh").decode()),
        public_key=public_key_line(key),
    )


def public_key_line(key: asyncssh.SSHKey) -> str:
    """The public half as "type base64", without a comment."""
    kind, data = key.export_public_key("openssh").decode().split()[:2]
    return f"{kind} {data}"


def public_key_of(private_key: Secret) -> str:
    """The public key line that belongs to an OpenSSH private key."""
    return public_key_line(asyncssh.import_private_key(private_key.reveal()))
