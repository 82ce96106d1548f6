"""How a server is reached over SSH, and what comes back from it."""

from __future__ import annotations

from dataclasses import dataclass

from managed.domain.secrets import Secret


@dataclass(frozen=True)
class Endpoint:
    """One SSH server with its pinned key and the key that opens it.

    `host_key` is a public key line ("ssh-ed25519 AAAA…"); `private_key` an OpenSSH private key.
    """

    address: str
    port: int
    user: str
    host_key: str
    private_key: Secret

    def describe(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{host}:{self.port}"


@dataclass(frozen=True)
class CommandResult:
    """How a remote command ended; output is bytes decoded as UTF-8 with replacement."""

    exit_status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class KeyPair:
    """An SSH key pair: the private key in OpenSSH format, the public key line without comment."""

    private_key: Secret
    public_key: str
