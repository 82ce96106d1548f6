"""What may be changed of a server while it is under management."""

from __future__ import annotations

from dataclasses import dataclass, replace

from managed.domain.errors import Conflict, InvalidInput, NotSupported
from managed.domain.public_keys import checked_public_key, fingerprint
from managed.domain.servers import Server, ServerOrigin, checked_address, checked_name


@dataclass(frozen=True)
class ServerChange:
    """None leaves a field as it is. A new host key takes the place of the one with the fingerprint
    `replaced_fingerprint`: nobody pins a key without knowing which one it replaces.
    """

    name: str | None = None
    address: str | None = None
    ssh_port: int | None = None
    host_key: str | None = None
    replaced_fingerprint: str | None = None


def changed_server(server: Server, change: ServerChange) -> Server:
    """The server as it is to be. NotSupported for the address of one on a node of ours, Conflict
    when another host key is pinned than the one to be replaced.
    """
    moves = change.address is not None or change.ssh_port is not None
    if moves and server.origin is ServerOrigin.CREATED:
        raise NotSupported(
            f"{server.name} runs on a node of ours, which says where it is reached",
            server_id=server.server_id,
        )
    name = server.name if change.name is None else checked_name(change.name)
    return replace(
        server,
        name=name,
        spec=replace(server.spec, name=name) if server.spec else None,
        address=server.address if change.address is None else checked_address(change.address),
        ssh_port=server.ssh_port if change.ssh_port is None else change.ssh_port,
        host_key=_host_key(server, change),
    )


def _host_key(server: Server, change: ServerChange) -> str:
    if (change.host_key is None) != (change.replaced_fingerprint is None):
        raise InvalidInput(
            "a new host key is given with the fingerprint of the one that it replaces",
            hint="GET /v1/servers/{server} shows the pinned key; compare the new one over another"
            " channel.",
            field="host_key",
        )
    if change.host_key is None:
        return server.host_key
    pinned = fingerprint(server.host_key) if server.host_key else ""
    if change.replaced_fingerprint != pinned:
        raise Conflict(
            f"the pinned host key has another fingerprint: {pinned or 'there is none yet'}",
            hint="Look at the server again before you pin a new key.",
            fingerprint=pinned,
        )
    return checked_public_key(change.host_key, "host_key")
