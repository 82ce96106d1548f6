"""A Playbooks port without Ansible: answers are functions, calls are kept for tests to look at."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from managed.domain.connections import Endpoint
from managed.domain.errors import InvalidInput, Json, ManagedError, PlaybookFailed
from managed.domain.secrets import Secret
from managed.ports import Emit, PlaybookReport, RegisterChild


@dataclass(frozen=True)
class PlaybookCall:
    playbook: str
    endpoint: Endpoint
    variables: Mapping[str, Json]
    secrets: Mapping[str, Secret]
    timeout: float


Answer = Callable[[PlaybookCall], PlaybookReport]
"""What a playbook does: returns its report or raises a ManagedError."""


def nothing_to_do(_call: PlaybookCall) -> PlaybookReport:
    return PlaybookReport(changed=0, failed_tasks=(), facts={})


@dataclass
class FakePlaybooks:
    """`answers` holds the playbooks that exist. The child that it registers is this process."""

    answers: dict[str, Answer] = field(default_factory=dict)
    calls: list[PlaybookCall] = field(default_factory=list)

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
        if playbook not in self.answers:
            raise InvalidInput(f"there is no playbook {playbook!r}")
        call = PlaybookCall(playbook, endpoint, dict(variables), dict(secrets), timeout)
        register_child(os.getpid())
        self.calls.append(call)
        emit("playbook_task", {"playbook": playbook, "task": playbook, "status": "started"})
        try:
            report = self.answers[playbook](call)
        except ManagedError as error:
            status = "failed" if isinstance(error, PlaybookFailed) else "unreachable"
            emit("playbook_task", {"playbook": playbook, "task": playbook, "status": status})
            raise
        status = "changed" if report.changed else "ok"
        emit("playbook_task", {"playbook": playbook, "task": playbook, "status": status})
        emit("playbook_output", {"playbook": playbook, "text": f"{playbook}: {status}"})
        return report
