"""Ansible's playbooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from managed.domain.connections import Endpoint
from managed.domain.errors import Json
from managed.domain.secrets import Secret
from managed.ports.common import Emit, RegisterChild


@dataclass(frozen=True)
class PlaybookReport:
    """How a playbook ended on its one server. `facts` is what it set with set_stats."""

    changed: int
    failed_tasks: tuple[str, ...]
    facts: Mapping[str, Json]


class Playbooks(Protocol):
    def run(
        self,
        playbook: str,
        endpoint: Endpoint,
        *,
        variables: Mapping[str, Json],
        secrets: Mapping[str, Secret],
        emit: Emit,
        register_child: RegisterChild,
        timeout: float,
    ) -> PlaybookReport:
        """Run `playbooks/<playbook>.yml` on one server and wait.

        Output goes to `emit` as it comes ("playbook_task", "playbook_output"). The process group
        of ansible-playbook is given to `register_child` before it works, and dies with this
        process. Raises PlaybookFailed (failed tasks in details), ServerUnreachable,
        HostKeyChanged, LoginRefused, and UnknownOutcome when the time is over (all of it is ended
        then). Secrets travel in files of a private directory that is removed after. What `emit`
        and `register_child` raise ends the run and comes through.
        """
        ...
