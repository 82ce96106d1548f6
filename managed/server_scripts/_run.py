"""What every script on a server does alike: its input, its lines of output, its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_PROGRESS = 2.0
OUTPUT_TAIL = 2000
PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ScriptFailed(Exception):
    """The script can't do its work; `code` is one of managed.domain.errors' codes."""

    def __init__(self, message: str, code: str = "command-failed", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint


def say(text: str) -> None:
    """Print one line of the log."""
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
    sys.stdout.flush()


def emit(event: str, **data: Any) -> None:
    """Print one structured event for the worker that follows the log."""
    say("@managed " + json.dumps({"event": event, **data}))


class Progress:
    """Emits an event at most every two seconds."""

    def __init__(self, event: str) -> None:
        self.event = event
        self.last = float("-inf")

    def show(self, **data: Any) -> None:
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_PROGRESS:
            self.last = now
            emit(self.event, **data)


class Stopwatch:
    """Says how long each part took, and keeps the numbers for the result."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self.started, 1)
        self.started = now
        say(f"{part}: {self.seconds[part]} s")


def program_environment(additions: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for programs: plain English, all the usual directories in PATH."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "PATH": PROGRAM_PATH, **(additions or {})}


def run_program(
    argv: Sequence[str | bytes],
    *,
    stdin: str = "",
    accepted: Sequence[int] = (0,),
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return what it printed; ScriptFailed for any other status."""
    try:
        ended = subprocess.run(
            argv,
            input=stdin.encode(),
            capture_output=True,
            check=False,
            env=program_environment(environment),
        )
    except FileNotFoundError as error:
        raise ScriptFailed(
            f"the program {os.fsdecode(argv[0])} is missing", "missing-requirement"
        ) from error
    output = ended.stdout.decode("utf-8", "replace")
    if ended.returncode not in accepted:
        errors = ended.stderr.decode("utf-8", "replace")
        tail = (errors or output).strip()[-OUTPUT_TAIL:]
        shown = " ".join(os.fsdecode(word) for word in argv[:4])
        raise ScriptFailed(f"{shown} ended with status {ended.returncode}: {tail}")
    return output


def utc_now_text() -> str:
    """The server's clock, as scripts write times."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file in one step, with its mode from the first moment, and fsync it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def run_directory() -> Path:
    """Where this run's record is kept."""
    return Path(os.environ["MANAGED_RUN_DIR"])


def run_script(work: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]) -> None:
    """Call `work` with the JSON input, write result.json, and end with its exit status.

    `work` gives back the exit status and the result; ScriptFailed becomes status 1 and an error
    in the result. Anything else that is raised is a defect: it is recorded and shown as such.
    """
    status = 1
    result: dict[str, Any] = {}
    try:
        status, result = work(json.loads(sys.argv[1]))
        result = {"ok": status == 0, **result}
    except ScriptFailed as failure:
        say(f"failed: {failure.message}")
        result = _failed(failure.code, failure.message, failure.hint)
    except BaseException as error:
        result = _failed("error", f"{type(error).__name__}: {error}", "")
        raise
    finally:
        text = json.dumps(result, indent=1) + "\n"
        write_atomically(run_directory() / "result.json", text.encode())
    sys.exit(status)


def _failed(code: str, message: str, hint: str) -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "detail": message, "hint": hint}}
