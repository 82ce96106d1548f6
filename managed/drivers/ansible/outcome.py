"""From the events of ansible-runner to what we tell others: live events, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from managed.domain.errors import (
    HostKeyChanged,
    Json,
    LoginRefused,
    ManagedError,
    PlaybookFailed,
    ServerUnreachable,
)
from managed.domain.secrets import Secret
from managed.ports import Emit, PlaybookReport

_TASK_STATUS: Final = {
    "playbook_on_task_start": "started",
    "playbook_on_handler_task_start": "started",
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_skipped": "skipped",
    "runner_on_unreachable": "unreachable",
}
_HOST_KEY_SIGNS: Final = (
    "REMOTE HOST IDENTIFICATION HAS CHANGED",
    "Host key verification failed",
)
_MESSAGE_LIMIT: Final = 2000
_LAST_LINES: Final = 20


@dataclass
class RunRecord:
    """Collects the events of one run and passes them on as they come, secrets blotted out.

    Tasks that hold secrets say `no_log`; blotting is the second net under them.
    """

    playbook: str
    emit: Emit
    secrets: Sequence[Secret] = ()
    failed_tasks: list[tuple[str, str]] = field(default_factory=list)
    unreachable: str = ""
    statistics: Mapping[str, Any] | None = None
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event of ansible-runner; unknown kinds only count as output."""
        for line in str(event.get("stdout") or "").splitlines():
            if line.strip():
                self._output(self.without_secrets(line.rstrip()))
        data = event.get("event_data") or {}
        kind = str(event.get("event"))
        if kind in _TASK_STATUS:
            self._task(_TASK_STATUS[kind], data)
        elif kind == "playbook_on_stats":
            self.statistics = data

    def without_secrets(self, text: str) -> str:
        for secret in self.secrets:
            if secret.reveal():
                text = text.replace(secret.reveal(), "***")
        return text

    def _output(self, line: str) -> None:
        self.last_lines.append(line)
        self.emit("playbook_output", {"playbook": self.playbook, "text": line})

    def _task(self, status: str, data: Mapping[str, Any]) -> None:
        name = self.without_secrets(str(data.get("task") or data.get("name") or ""))
        given = data.get("res")
        result: Mapping[str, Any] = given if isinstance(given, dict) else {}
        event: dict[str, Json] = {"playbook": self.playbook, "task": name, "status": status}
        if status == "ok" and result.get("changed"):
            event["status"] = "changed"
        if status in ("failed", "unreachable"):
            message = self.without_secrets(_message(result))
            event["message"] = message
            if status == "unreachable":
                self.unreachable = message
            elif not data.get("ignore_errors"):
                self.failed_tasks.append((name, message))
        self.emit("playbook_task", event)


def report_or_error(
    record: RunRecord, exit_status: int | None, server: str
) -> PlaybookReport | ManagedError:
    """How the run ended. Good only with exit status 0 and statistics that count no failure and
    no unreachable server; anything else is an error, also what nobody foresaw.
    """
    statistics = record.statistics or {}
    if record.unreachable or statistics.get("dark"):
        return unreachable_error(record.unreachable, server)
    if exit_status == 0 and record.statistics is not None and not statistics.get("failures"):
        return PlaybookReport(
            changed=sum((statistics.get("changed") or {}).values()),
            failed_tasks=tuple(name for name, _ in record.failed_tasks),
            facts=dict(statistics.get("artifact_data") or {}),
        )
    tasks: list[Json] = [{"task": name, "message": text} for name, text in record.failed_tasks]
    reason = record.failed_tasks[-1][1] if record.failed_tasks else "it stopped before its end"
    return PlaybookFailed(
        f"playbook {record.playbook} failed on {server}: {reason}",
        playbook=record.playbook,
        exit_status=exit_status,
        tasks=tasks,
        output=[] if tasks else list(record.last_lines),
    )


def unreachable_error(message: str, server: str) -> ManagedError:
    """Unreachable is not failed: which of the three reasons, so that only what may is retried."""
    if any(sign in message for sign in _HOST_KEY_SIGNS):
        return HostKeyChanged(
            f"{server} shows another SSH host key than the pinned one",
            hint="If the server was reinstalled, enrol it again; else find out who answers there.",
        )
    if "Permission denied (" in message or "Too many authentication failures" in message:
        return LoginRefused(
            f"{server} refused the login",
            hint="Is managed's public key still in the user's authorized_keys?",
        )
    return ServerUnreachable(f"{server} is unreachable: {message or 'no reason was given'}")


def _message(result: Mapping[str, Any]) -> str:
    """What a failed task says of itself, cut to a readable size."""
    if "censored" in result:
        return "the task handles secrets, its output is hidden"
    parts = [str(result[key]).strip() for key in ("msg", "stderr", "stdout") if result.get(key)]
    for item in result.get("results") or []:
        if isinstance(item, dict) and item.get("failed"):
            parts.append(_message(item))
    text = "\n".join(dict.fromkeys(parts)) or "no message"
    return text if len(text) <= _MESSAGE_LIMIT else text[-_MESSAGE_LIMIT:]
