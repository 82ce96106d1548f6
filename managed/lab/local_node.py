"""This machine as a node: its libvirt, started if it is ours to start, on record as "local"."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Final

from managed.domain.servers import Node
from managed.lab.libvirtd import PrivateLibvirtd, end_servers, lab_uri
from managed.settings import Settings
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
    storage = str(_disks(settings))
    known = next((n for n in installation.inventory.nodes() if n.name == LOCAL_NODE), None)
    if known is None:
        node = Node(str(uuid.uuid4()), LOCAL_NODE, uri, storage)
        return installation.inventory.add_node(node, installation.clock())
    node = Node(known.node_id, LOCAL_NODE, uri, storage)
    if node != known:
        installation.inventory.move_node(node)
    return node


def end_local_servers(settings: Settings) -> list[str]:
    """Pull the plug of every server on this machine's node; their names. Where libvirt is ours to
    start, it ends too. HypervisorUnavailable when it does not answer: nothing was ended then.
    """
    if not settings.libvirt_uri and os.geteuid() == 0:
        return PrivateLibvirtd(settings.state).stop_everything()
    if not _disks(settings).exists():
        return []
    return end_servers(lab_uri(settings.state, settings.libvirt_uri), _disks(settings))


def _disks(settings: Settings) -> Path:
    return settings.state / "servers"
