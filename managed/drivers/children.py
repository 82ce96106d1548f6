"""The engine's view of child processes: implements `managed.ports.ChildProcesses`."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from managed.domain.errors import Json, UnknownOutcome
from managed.drivers.processes import ProcessIdentity, end_survivors, identity_of


class LocalChildren:
    """Process groups of this host. A child recorded on another host is that host's to end: its
    workers' children die with them (parent-death signal), and their leases have run out.
    """

    def __init__(self) -> None:
        self._host = socket.gethostname()

    def describe(self, group: int) -> Mapping[str, Json]:
        identity = identity_of(group)
        if identity is None:
            raise UnknownOutcome(f"process {group} ended before it could be recorded")
        return {"host": self._host, **identity.as_json()}

    def end(self, child: Mapping[str, Json]) -> bool:
        if child.get("host") != self._host:
            return False
        return bool(end_survivors(ProcessIdentity.from_json(child), grace=0))
