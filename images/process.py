"""Run one long program: say every few seconds that it lives, and keep its output for errors."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from images.errors import ImageError, MirrorUnreachable
from images.prerequisites import TOOL_DIRECTORIES

Report = Callable[[str], None]

SECONDS_BETWEEN_REPORTS = 10.0
SECONDS_TO_END = 20.0
TAIL_LINES = 12
MIRROR_SYMPTOMS = (
    "Failed to fetch",
    "Could not connect",
    "Could not resolve",
    "Temporary failure resolving",
    "Unable to connect",
    "does not have a Release file",
)


def run(
    argv: Sequence[str],
    what: str,
    report: Report,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    """Run `argv` to its end and return its output (both streams).

    what: a phrase such as "installing Debian", used in progress lines and errors.
    environment: variables added to this process's own. directory: where it runs.
    Raises MirrorUnreachable when the output shows that a download failed, else ImageError.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = _start(argv, log, environment, directory)
        try:
            while process.poll() is None:
                try:
                    process.wait(SECONDS_BETWEEN_REPORTS)
                except subprocess.TimeoutExpired:
                    report(f"{what}: {time.monotonic() - started:.0f} s so far")
        finally:
            _end(process)
        log.seek(0)
        output = log.read()
    if process.returncode != 0:
        raise failure(argv[0], what, process.returncode, output)
    return output


def failure(program: str, what: str, status: int, output: str) -> ImageError | MirrorUnreachable:
    """The error for a program that ended with `status` after writing `output`."""
    tail = "\n".join(output.strip().splitlines()[-TAIL_LINES:])
    symptom = next(
        (line for line in output.splitlines() if any(s in line for s in MIRROR_SYMPTOMS)), None
    )
    if symptom is not None:
        return MirrorUnreachable(
            f"While {what}, the Debian mirror did not deliver: {symptom.strip()}",
            hint="Check the network, or choose a mirror with MANAGED_DEBIAN_MIRROR.",
            output=tail,
        )
    last = tail.splitlines()[-1] if tail else "it said nothing"
    return ImageError(
        f"While {what}, {program} ended with status {status}: {last}", output=tail, status=status
    )


def _start(
    argv: Sequence[str],
    log: IO[str],
    environment: Mapping[str, str] | None,
    directory: Path | None,
) -> subprocess.Popen[bytes]:
    variables = {**os.environ, "PATH": TOOL_DIRECTORIES, "LC_ALL": "C.UTF-8"}
    variables.update(environment or {})
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
            cwd=directory,
        )
    except FileNotFoundError as error:
        raise ImageError(f"This machine does not have the program {argv[0]}.") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that still runs because we were interrupted, and wait for it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
