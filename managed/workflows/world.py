"""The world as workflows see it: every port at one place, filled in by `managed.wiring`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from managed.domain.connections import Endpoint, KeyPair
from managed.domain.errors import NotSupported
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.servers import Server
from managed.domain.snapshots import RepositoryAddress, account_of
from managed.ports import (
    BackupRepositories,
    DetachedRuns,
    Gateway,
    Hypervisor,
    ObjectStore,
    Playbooks,
    Polls,
    RemoteShell,
    RescueSessions,
    Servers,
    Snapshots,
    Transfers,
    Tunnels,
    Vault,
)


@dataclass(frozen=True)
class Sources:
    """Where servers get packages: the text of their apt sources per operating system, and the
    address of an apt proxy ("" for none; only lab servers get one).
    """

    apt_sources: Callable[[str], str]
    apt_proxy: str = ""


@dataclass(frozen=True)
class World:
    """`hypervisor_of` gives the driver for a node id; `new_key_pair` makes SSH keys and
    `public_key` tells the public half of a private one. `restic_path` is restic on this machine.
    """

    servers: Servers
    vault: Vault
    rescue_sessions: RescueSessions
    snapshots: Snapshots
    hypervisor_of: Callable[[str], Hypervisor]
    shell: RemoteShell
    runs: DetachedRuns
    polls: Polls
    tunnels: Tunnels
    transfers: Transfers
    playbooks: Playbooks
    repositories: BackupRepositories
    gateway: Gateway
    objects: ObjectStore
    sources: Sources
    restic_path: str
    new_key_pair: Callable[[], KeyPair]
    public_key: Callable[[Secret], str]

    def hypervisor(self, server: Server) -> Hypervisor:
        """The driver of the server's node; NotSupported for servers that no node of ours runs."""
        if server.node_id is None:
            raise NotSupported(
                f"{server.name} was enrolled and runs on no node of ours",
                hint="Power, rescue and bare-metal restore need a server on one of our nodes.",
                server_id=server.server_id,
            )
        return self.hypervisor_of(server.node_id)

    def time_scale(self, server_id: str) -> float:
        server = self.servers.get(server_id)
        if server.node_id is None:
            return 1.0
        return self.hypervisor_of(server.node_id).capabilities().time_scale

    def endpoint(self, server_id: str) -> Endpoint:
        """Where SSH answers: an open rescue session (its own keys, same address) or the server."""
        server = self.servers.get(server_id)
        session = self.rescue_sessions.current(server_id)
        if session is None:
            user, host_key, owner = server.ssh_user, server.host_key, server_id
        else:
            user, host_key, owner = "root", session.host_key, session.session_id
        return Endpoint(
            address=server.address,
            port=server.ssh_port,
            user=user,
            host_key=host_key,
            private_key=self.vault.secret(owner, SecretPurpose.LOGIN_KEY),
        )

    def repository(self, server_id: str) -> RepositoryAddress:
        return RepositoryAddress(
            account=account_of(server_id),
            password=self.vault.secret(server_id, SecretPurpose.REPOSITORY_PASSWORD),
            key_id=self.servers.repository_key(server_id),
        )
