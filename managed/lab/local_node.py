"""This machine as a node: its libvirt, started if it is ours to start, on record as "local"."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Final

from managed.domain.servers import Node
from managed.lab.libvirtd import PrivateLibvirtd, lab_uri
from managed.wiring import Installation

LOCAL_NODE: Final = "local"


def register_local_node(installation: Installation) -> Node:
    """Have the node "local" on record, with the address that libvirt has now.

    Raises MissingRequirement or HypervisorUnavailable when libvirt is not to be had.
    """
    settings = installation.settings
    uri = lab_uri(settings.state, settings.libvirt_uri)
    if not settings.libvirt_uri and os.geteuid() == 0:
        PrivateLibvirtd(settings.state).start()
    storage = str(Path(settings.state) / "servers")
    known = next((n for n in installation.inventory.nodes() if n.name == LOCAL_NODE), None)
    if known is None:
        node = Node(str(uuid.uuid4()), LOCAL_NODE, uri, storage)
        return installation.inventory.add_node(node, installation.clock())
    node = Node(known.node_id, LOCAL_NODE, uri, storage)
    if node != known:
        installation.inventory.move_node(node)
    return node
