"""How a demo ends: small stand-ins for its parts, real signals to a real process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from managed.lab.demo_run import FAILED, HELD, INTERRUPTED, how_to_look
from managed.lab.locks import only_holder
from managed.settings import Settings
from tests.support.demo_process import PROCESSES, demo
from tests.support.waiting import wait_until

_BEFORE = ["cleaning 1", "cleaned 1", "images", "service", "demo"]
_AFTER = ["cleaning 2", "cleaned 2"]


class Run:
    """A demo as a process of its own."""

    def __init__(self, folder: Path, scene: str, *, keep: bool) -> None:
        self.folder = folder
        self.output, said = PROCESSES.Pipe(duplex=False)
        self.process = PROCESSES.Process(target=demo, args=(folder, scene, keep, said))
        self.process.start()
        said.close()

    @property
    def notes(self) -> list[str]:
        file = self.folder / "notes"
        return file.read_text().splitlines() if file.exists() else []

    def wait_for(self, note: str) -> None:
        wait_until(lambda: note in self.notes, timeout=60, what=f"the demo says {note}")

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int | None, str]:
        """Its exit status and all that it has said."""
        with os.fdopen(os.dup(self.output.fileno())) as said:
            text = said.read()
        self.process.join(60)
        return self.process.exitcode, text


@contextmanager
def running(folder: Path, scene: str, *, keep: bool = False) -> Iterator[Run]:
    run = Run(folder, scene, keep=keep)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.join()
        run.output.close()


def test_a_demo_that_holds_cleans_up(tmp_path: Path) -> None:
    with running(tmp_path, "holds") as run:
        status, said = run.end()
    assert status == HELD, said
    assert run.notes == _BEFORE + _AFTER
    assert (tmp_path / "demo" / "report.json").exists()


def test_a_demo_that_fails_says_why_and_cleans_up(tmp_path: Path) -> None:
    with running(tmp_path, "fails", keep=True) as run:
        status, said = run.end()
    assert status == FAILED
    assert "the [/red] page differs" in said
    assert run.notes == _BEFORE + _AFTER


def test_a_kept_demo_leaves_all_up_and_says_how_to_look(tmp_path: Path) -> None:
    with running(tmp_path, "holds", keep=True) as run:
        status, said = run.end()
    assert status == HELD
    assert run.notes == _BEFORE
    assert "sudo env MANAGED_STATE_DIR=" in said
    assert "http://127.0.0.1:20000/" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_and_no_other_one_stops_the_cleaning(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path, "waits", keep=True) as run:
        run.wait_for("demo")
        run.send_signal(number)
        run.wait_for("cleaning 2")
        for another in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            run.send_signal(another)
        (tmp_path / "go-on").touch()
        status, said = run.end()
    assert status == INTERRUPTED, said
    assert run.notes == _BEFORE + _AFTER
    assert "cleaning up" in said


def test_a_terminal_that_is_gone_does_not_keep_it_from_cleaning_up(tmp_path: Path) -> None:
    with running(tmp_path, "waits") as run:
        run.wait_for("demo")
        run.output.close()
        run.send_signal(signal.SIGHUP)
        (tmp_path / "go-on").touch()
        run.process.join(60)
    assert run.notes == _BEFORE + _AFTER


def test_a_second_demo_ends_nothing_of_the_first(tmp_path: Path) -> None:
    with (
        only_holder(tmp_path / "demo" / "lock", "a demo is at work", hint=""),
        running(tmp_path, "holds") as run,
    ):
        status, said = run.end()
    assert status != HELD
    assert "a demo is at work" in said
    assert run.notes == []


def test_lines_to_copy_are_complete() -> None:
    own = Settings(state_dir=Path("/srv/a folder"), listen_port=20001)
    lines = how_to_look(own, "http://127.0.0.1:20000/", is_sudo=False).splitlines()
    commands = [line.strip() for line in lines if ".venv/bin/managed" in line]
    assert len(commands) == 3
    for command in commands:
        assert command.startswith("env 'MANAGED_STATE_DIR=/srv/a folder' ")
        assert "MANAGED_LISTEN_PORT=20001" in command
