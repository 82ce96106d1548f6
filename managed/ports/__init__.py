"""The ports through which workflows reach the world.

Each Protocol's docstrings are its contract; `tests/contract/` runs one suite per port against the
fake and the real driver. Everything raises `managed.domain.errors` and nothing else; every effect
is idempotent unless its docstring says otherwise; all durations are seconds.
"""

from managed.ports.backups import BackupRepositories, Gateway, ObjectStore
from managed.ports.common import Clock, Emit, RegisterChild, Stopwatch
from managed.ports.helpdesk import Helpdesk
from managed.ports.hypervisor import (
    Hypervisor,
    HypervisorCapabilities,
    RescueBoot,
    RestorePoint,
    ServerStats,
)
from managed.ports.jobs import ChildProcesses, JobStore
from managed.ports.notifications import Notifier
from managed.ports.playbooks import PlaybookReport, Playbooks
from managed.ports.records import RescueSessions, Servers, Snapshots, Vault
from managed.ports.remote import (
    DetachedRuns,
    Polls,
    RemoteShell,
    RunDelivery,
    Transfers,
    TunnelHandle,
    Tunnels,
)

__all__ = [
    "BackupRepositories",
    "ChildProcesses",
    "Clock",
    "DetachedRuns",
    "Emit",
    "Gateway",
    "Helpdesk",
    "Hypervisor",
    "HypervisorCapabilities",
    "JobStore",
    "Notifier",
    "ObjectStore",
    "PlaybookReport",
    "Playbooks",
    "Polls",
    "RegisterChild",
    "RemoteShell",
    "RescueBoot",
    "RescueSessions",
    "RestorePoint",
    "RunDelivery",
    "ServerStats",
    "Servers",
    "Snapshots",
    "Stopwatch",
    "Transfers",
    "TunnelHandle",
    "Tunnels",
    "Vault",
]
