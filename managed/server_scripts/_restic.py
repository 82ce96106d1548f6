"""Running restic: its JSON lines become progress events, its exit status a clear outcome.

The repository's password and the gateway's credentials are in the environment already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from managed.server_scripts._run import Progress, ScriptFailed, program_environment, say

INSTALLED_RESTIC = "/usr/local/lib/managed/restic"
INCOMPLETE = 3
SHOWN_ERRORS = 20
FAILURES = {
    10: ("no-backup", "the repository does not exist"),
    11: ("repository-locked", "the repository is locked"),
    12: ("repository-damaged", "the repository's password is wrong"),
    130: ("cancelled", "restic was interrupted"),
}


class Restic:
    """One repository. `cache` is a directory, or empty for none."""

    def __init__(self, program: str, repository: str, cache: str) -> None:
        self.program = program or self._installed()
        self.common = ["--repo", repository, "--retry-lock", "5m"]
        self.common += ["--cache-dir", cache] if cache else ["--no-cache"]
        self.errors: list[str] = []

    @staticmethod
    def _installed() -> str:
        found = shutil.which("restic", path=program_environment()["PATH"])
        return INSTALLED_RESTIC if os.path.exists(INSTALLED_RESTIC) else found or "restic"

    def command(self, *words: str) -> tuple[str, ...]:
        return (self.program, *self.common, *words)

    def follow(self, words: Sequence[str], event: str) -> tuple[int, dict[str, Any]]:
        """Run a command that reports by JSON lines; its status and its summary come back.

        Errors are said, and collected in `errors`. A status that means failure raises.
        """
        progress = Progress(event)
        summary: dict[str, Any] = {}
        process = self._started(self.command("--json", *words))
        with process:
            for line in process.stdout or ():
                message = _parsed(line)
                kind = message.get("message_type", "")
                if kind == "status":
                    progress.show(**_progress_of(message))
                elif kind == "summary":
                    summary = message
                elif kind in ("error", "exit_error") or not kind:
                    self._note(message)
        self._check(process.returncode, words[0])
        return process.returncode, summary

    def lines(self, *words: str) -> Iterator[bytes]:
        """The output of a command, line by line; raises at the end when it failed."""
        process = self._started(self.command(*words), errors=subprocess.PIPE)
        with process:
            yield from process.stdout or ()
            noise = process.stderr.read() if process.stderr else b""
        if process.returncode:
            self._note({"text": noise.decode("utf-8", "replace")})
        self._check(process.returncode, words[0], accepted=(0,))

    def _started(
        self, argv: Sequence[str], errors: int = subprocess.STDOUT
    ) -> subprocess.Popen[bytes]:
        environment = program_environment({"RESTIC_PROGRESS_FPS": "0.5"})
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        except FileNotFoundError as error:
            raise ScriptFailed(f"{self.program} is missing", "missing-requirement") from error

    def _note(self, message: dict[str, Any]) -> None:
        error = message.get("error")
        detail = error.get("message", "") if isinstance(error, dict) else ""
        text = str(detail or message.get("message") or message.get("text") or message)
        item = message.get("item", "")
        line = f"{item}: {text}" if item else text
        say(f"restic: {line.strip()}")
        if "text" not in message and len(self.errors) < SHOWN_ERRORS:
            self.errors.append(line.strip())

    def _check(self, status: int, what: str, accepted: Sequence[int] = (0, INCOMPLETE)) -> None:
        if status in accepted:
            return
        code, reason = FAILURES.get(status, ("command-failed", f"it ended with status {status}"))
        last = self.errors[-1] if self.errors else ""
        raise ScriptFailed(f"restic {what} failed: {reason}" + (f" ({last})" if last else ""), code)


def _parsed(line: bytes) -> dict[str, Any]:
    """One JSON message; a line of plain text becomes {"text": …}."""
    try:
        message = json.loads(line)
    except ValueError:
        return {"text": line.decode("utf-8", "replace").rstrip()}
    return message if isinstance(message, dict) else {"text": str(message)}


def _progress_of(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "percent": round(100 * float(message.get("percent_done", 0)), 1),
        "files": message.get("files_done", message.get("files_restored", 0)),
        "bytes": message.get("bytes_done", message.get("bytes_restored", 0)),
        "total_bytes": message.get("total_bytes", 0),
    }
