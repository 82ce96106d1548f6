"""Running restic by sh: in a process group of its own that dies with the thread that started it."""

from __future__ import annotations

import io
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import sh

from managed.domain.errors import MissingRequirement
from managed.drivers.processes import with_parent_death_signal
from managed.drivers.rclone import clean_environment

EVERY_STATUS: Final = tuple(range(-64, 256))
KEPT_LINES: Final = 2000
# Of sh, both ways: customers' paths are bytes, and sh takes no argument that is not text.
SH_ENCODING: Final = "latin-1"


@dataclass(frozen=True)
class Ended:
    """How restic ended. `status` is negative for a signal; `stderr` holds its last lines."""

    status: int
    stderr: str


def run_for_lines(
    command: Sequence[str],
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    register_child: Callable[[int], None] | None = None,
) -> Ended:
    """Run and hand over each line of its output; what `on_line` raises ends restic and goes on."""
    errors: deque[str] = deque(maxlen=KEPT_LINES)
    running = _prepared(command, environment, errors)(_iter=True, _return_cmd=True)
    ended = False
    try:
        if register_child is not None:
            register_child(running.process.pgid)
        for line in running:
            on_line(_text(line))
        ended = True
    finally:
        if not ended:
            with suppress(ProcessLookupError):
                os.killpg(running.process.pgid, signal.SIGKILL)
            running.wait()
    return _ended(running, errors)


def run_for_bytes(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Ended, bytes]:
    """Run and keep its whole output, byte for byte."""
    errors: deque[str] = deque(maxlen=KEPT_LINES)
    output = io.BytesIO()
    running = _prepared(command, environment, errors)(_out=output, _bg=True, _bg_exc=False)
    running.wait()
    return _ended(running, errors), output.getvalue()


def _prepared(
    command: Sequence[str], environment: Mapping[str, str], errors: deque[str]
) -> sh.Command:
    program, *arguments = with_parent_death_signal(command)
    try:
        runner = sh.Command(program)
    except sh.CommandNotFound as error:
        raise MissingRequirement(
            f"{program} is missing", hint="It is part of the package util-linux."
        ) from error
    return runner.bake(
        *(os.fsencode(argument).decode(SH_ENCODING) for argument in arguments),
        _env=clean_environment(environment),
        _err=lambda line: errors.append(_text(line).rstrip("\n")),
        _ok_code=EVERY_STATUS,
        _new_group=True,
        _tty_out=False,
        _encoding=SH_ENCODING,
    )


def _text(line: str) -> str:
    return line.encode(SH_ENCODING).decode(errors="replace")


def _ended(running: sh.RunningCommand, errors: Sequence[str]) -> Ended:
    status = running.process.exit_code
    return Ended(-1 if status is None else status, "\n".join(errors))
