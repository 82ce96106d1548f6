"""Running restic by sh: in a process group of its own that dies with the thread that started it."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, Final

import sh

from managed.domain.errors import EvidenceMissing, MissingRequirement, UnknownOutcome
from managed.drivers.processes import identity_of, with_parent_death_signal
from managed.drivers.rclone import clean_environment
from managed.ports import RegisterChild

EVERY_STATUS: Final = tuple(range(-64, 256))
KEPT_LINES: Final = 2000
# Above what restic prints of a hundred thousand snapshots, which are one line.
LONGEST_LINE: Final = 64 * 1024 * 1024
CHUNK: Final = 1024 * 1024
# Of sh, both ways: customers' paths are bytes, and sh takes no argument that is not text.
SH_ENCODING: Final = "latin-1"


@dataclass(frozen=True)
class Ended:
    """How restic ended. `status` is negative for a signal; `stderr` holds its last lines."""

    status: int
    stderr: str


class Running:
    """restic at work. Its output comes through a pipe: what is not read yet makes it wait, so that
    it never fills our memory.
    """

    def __init__(self, command: sh.RunningCommand, output: BinaryIO, errors: Sequence[str]) -> None:
        self._command = command
        self._output = output
        self._errors = errors
        self.is_over = False

    def lines(self) -> Iterator[str]:
        """Its output line by line; EvidenceMissing for one that is longer than any of restic's."""
        while line := self._output.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise EvidenceMissing(f"restic printed a line longer than {LONGEST_LINE} bytes")
            yield line.decode(errors="replace")

    def chunks(self) -> Iterator[bytes]:
        """Its output, byte for byte."""
        while chunk := self._output.read(CHUNK):
            yield chunk

    def ended(self) -> Ended:
        """How it ended; to be asked when all of its output has been read."""
        self._command.wait()
        self.is_over = True
        status = self._command.process.exit_code
        return Ended(-1 if status is None else status, "\n".join(self._errors))


@contextmanager
def started(
    command: Sequence[str],
    environment: Mapping[str, str],
    register_child: RegisterChild | None = None,
) -> Iterator[Running]:
    """restic, begun, and ended by force where it still works when the block is left."""
    errors: deque[str] = deque(maxlen=KEPT_LINES)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as output:
        try:
            runner = _prepared(command, environment, errors)
            begun = runner(_out=writing, _bg=True, _bg_exc=False)
        finally:
            os.close(writing)
        running = Running(begun, output, errors)
        try:
            if register_child is not None:
                _register(begun.process.pgid, register_child)
            yield running
        finally:
            if not running.is_over:
                with suppress(ProcessLookupError):
                    os.killpg(begun.process.pgid, signal.SIGKILL)
                begun.wait()


def run_for_lines(
    command: Sequence[str],
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    register_child: RegisterChild | None = None,
) -> Ended:
    """Run and hand over each line of its output; what `on_line` raises ends restic and goes on."""
    with started(command, environment, register_child) as running:
        for line in running.lines():
            on_line(line)
        return running.ended()


def _register(group: int, register_child: RegisterChild) -> None:
    """One that has ended already cannot be described, and nobody needs to end it."""
    try:
        register_child(group)
    except UnknownOutcome:
        if identity_of(group) is not None:
            raise


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
