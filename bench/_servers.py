"""Servers on record, for benches whose jobs never reach one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.storage.database import writing
from managed.wiring import Installation


def add_servers(installation: Installation, number: int) -> Sequence[str]:
    """So many enrolled servers that nobody can reach; their ids."""
    server_ids = [str(uuid.uuid4()) for _ in range(number)]
    with writing(installation.database) as connection:
        for place, server_id in enumerate(server_ids):
            server = Server(
                server_id=server_id,
                name=f"bench-{place}",
                origin=ServerOrigin.ENROLLED,
                status=ServerStatus.ACTIVE,
                address="127.0.0.1",
                ssh_port=22,
                ssh_user="root",
                host_key="",
                operating_system="",
            )
            installation.inventory.add(connection, server, installation.clock())
    return server_ids
