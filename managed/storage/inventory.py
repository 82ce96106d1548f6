"""Servers and nodes: implements `managed.ports.Servers`, and what the API adds to it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, literal_column, select, update
from sqlalchemy.exc import IntegrityError

from managed.domain.errors import AlreadyExists, HostKeyChanged, NotFound
from managed.domain.servers import Node, Server, ServerStatus
from managed.storage.database import reading, writing
from managed.storage.rows import node_from_row, server_from_row, spec_from_json
from managed.storage.tables import nodes, servers

# Written out, not given as a parameter: only so is an index of the present servers used.
PRESENT = servers.c.status != literal_column(f"'{ServerStatus.DELETED}'")


class Inventory:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- nodes

    def add_node(self, node: Node, now: datetime) -> Node:
        """AlreadyExists when a node of that name exists."""
        with writing(self._engine) as connection:
            self.add_node_within(connection, node, now)
        return node

    def add_node_within(self, connection: Connection, node: Node, now: datetime) -> None:
        """The same inside the caller's transaction."""
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(nodes).values(
                        id=node.node_id,
                        name=node.name,
                        libvirt_uri=node.libvirt_uri,
                        storage_dir=node.storage_dir,
                        created_at=now,
                    )
                )
        except IntegrityError as error:
            raise AlreadyExists(f"a node named {node.name} exists", field="name") from error

    def move_node(self, node: Node) -> None:
        """Note another libvirt address or storage folder of a node."""
        with writing(self._engine) as connection:
            connection.execute(
                update(nodes)
                .where(nodes.c.id == node.node_id)
                .values(libvirt_uri=node.libvirt_uri, storage_dir=node.storage_dir)
            )

    def node(self, node_id: str) -> Node:
        with reading(self._engine) as connection:
            row = connection.execute(select(nodes).where(nodes.c.id == node_id)).one_or_none()
        if row is None:
            raise NotFound(f"there is no node {node_id}", node_id=node_id)
        return node_from_row(row)

    def nodes(self) -> Sequence[Node]:
        with reading(self._engine) as connection:
            return [node_from_row(r) for r in connection.execute(select(nodes).order_by("name"))]

    # -- servers

    def add(self, connection: Connection, server: Server, now: datetime) -> None:
        """Insert inside the caller's transaction; AlreadyExists when the name is taken."""
        if server.spec is not None:
            _refuse_used_ports(connection, server)
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(servers).values(
                        id=server.server_id,
                        name=server.name,
                        origin=server.origin.value,
                        status=server.status.value,
                        address=server.address,
                        ssh_port=server.ssh_port,
                        ssh_user=server.ssh_user,
                        host_key=server.host_key,
                        operating_system=server.operating_system,
                        node_id=server.node_id,
                        spec=asdict(server.spec) if server.spec else None,
                        created_at=now,
                        placed_since=now if server.status is ServerStatus.ACTIVE else None,
                    )
                )
        except IntegrityError as error:
            raise AlreadyExists(
                f"a server named {server.name} exists", hint="Choose another name.", field="name"
            ) from error

    def get(self, server_id: str) -> Server:
        with reading(self._engine) as connection:
            row = connection.execute(select(servers).where(servers.c.id == server_id)).one_or_none()
        if row is None or row.status == ServerStatus.DELETED:
            raise NotFound(f"there is no server {server_id}", server_id=server_id)
        return server_from_row(row)

    def named(self, reference: str) -> Server | None:
        """The server of this id or name, unless it is deleted."""
        try:
            return self.get(str(uuid.UUID(reference)))
        except NotFound:
            return None
        except ValueError:
            return self.by_name(reference)

    def owner_of(self, server_id: str) -> str | None:
        """The customer whose the server is or was, also when it is deleted; None: nobody's."""
        with reading(self._engine) as connection:
            return self.owner_within(connection, server_id)

    def owner_within(self, connection: Connection, server_id: str) -> str | None:
        """The same inside the caller's transaction."""
        query = select(servers.c.customer_id).where(servers.c.id == server_id)
        return connection.execute(query).scalar_one_or_none()

    def by_name(self, name: str) -> Server | None:
        query = select(servers).where(
            servers.c.name == name, servers.c.status != ServerStatus.DELETED.value
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return server_from_row(row) if row else None

    def find(
        self,
        *,
        customer_id: str | None = None,
        plan_id: str | None = None,
        node_id: str | None = None,
        status: ServerStatus | None = None,
        after_name: str = "",
        limit: int = 50,
    ) -> Sequence[Server]:
        """Servers by name, those after `after_name`; only those with what is given."""
        query = (
            select(servers)
            .where(PRESENT, servers.c.name > after_name)
            .order_by(servers.c.name)
            .limit(limit)
        )
        wanted = {
            servers.c.customer_id: customer_id,
            servers.c.plan_id: plan_id,
            servers.c.node_id: node_id,
            servers.c.status: status.value if status else None,
        }
        for column, value in wanted.items():
            if value is not None:
                query = query.where(column == value)
        with reading(self._engine) as connection:
            return [server_from_row(row) for row in connection.execute(query)]

    def taken_names(self, names: Sequence[str]) -> set[str]:
        """Those that servers under management have."""
        query = select(servers.c.name).where(
            servers.c.name.in_(names), servers.c.status != ServerStatus.DELETED.value
        )
        with reading(self._engine) as connection:
            return {row.name for row in connection.execute(query)}

    def set_status(self, server_id: str, status: ServerStatus, now: datetime) -> None:
        values: dict[str, Any] = {"status": status.value}
        if status is ServerStatus.ACTIVE:
            values["placed_since"] = func.coalesce(servers.c.placed_since, now)
        with writing(self._engine) as connection:
            connection.execute(update(servers).where(servers.c.id == server_id).values(values))

    def pin_host_key(self, server_id: str, host_key: str, *, replacing: str) -> None:
        with writing(self._engine) as connection:
            changed = connection.execute(
                update(servers)
                .where(servers.c.id == server_id, servers.c.host_key.in_([replacing, host_key]))
                .values(host_key=host_key)
            ).rowcount
        if changed != 1:
            raise HostKeyChanged(
                "another host key is pinned for this server",
                hint="Compare the keys over another channel before pinning a new one.",
                server_id=server_id,
            )

    # -- the server's repository

    def set_repository_key(self, server_id: str, key_id: str) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(servers).where(servers.c.id == server_id).values(repository_key_id=key_id)
            )

    def repository_key(self, server_id: str) -> str:
        query = select(servers.c.repository_key_id).where(servers.c.id == server_id)
        with reading(self._engine) as connection:
            return str(connection.execute(query).scalar_one())

    def part_to_check(self, server_id: str, parts: int) -> int:
        query = select(servers.c.checked_parts).where(servers.c.id == server_id)
        with reading(self._engine) as connection:
            return int(connection.execute(query).scalar_one()) % parts + 1

    def part_checked(self, server_id: str, part: int, parts: int) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(servers)
                .where(servers.c.id == server_id, servers.c.checked_parts % parts == part - 1)
                .values(checked_parts=servers.c.checked_parts + 1)
            )

    def used_host_ports_within(self, connection: Connection, node_id: str) -> set[int]:
        """Ports of the node that lead to servers. The caller's transaction holds the node until it
        ends: two that choose ports for new servers go one after the other.
        """
        connection.execute(select(nodes.c.id).where(nodes.c.id == node_id).with_for_update())
        return _used_ports(connection, node_id)


def _used_ports(connection: Connection, node_id: str | None) -> set[int]:
    query = select(servers.c.spec).where(
        servers.c.node_id == node_id,
        servers.c.status != ServerStatus.DELETED.value,
        servers.c.spec.is_not(None),
    )
    return {
        forward.host_port
        for row in connection.execute(query)
        for forward in spec_from_json(row.spec).forwards
    }


def _refuse_used_ports(connection: Connection, server: Server) -> None:
    forwards = server.spec.forwards if server.spec else ()
    taken = {f.host_port for f in forwards} & _used_ports(connection, server.node_id)
    if taken:
        raise AlreadyExists(
            f"ports {sorted(taken)} of the node lead to another server",
            hint="Leave the ports out; free ones are then chosen.",
            field="forwards",
        )
