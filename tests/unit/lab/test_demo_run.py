"""How a demo ends: small stand-ins for its parts, real signals to a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from managed.lab.demo_run import FAILED, HELD, INTERRUPTED, how_to_look
from managed.lab.locks import only_holder
from managed.settings import Settings
from tests.support.waiting import wait_until

# Everything that a demo does is a line in the file `notes`; what is to hold it up waits for a file.
_PROGRAM = """
import sys, time
from pathlib import Path
from rich.console import Console
from managed.domain.errors import CommandFailed
from managed.lab import demo_run
from managed.settings import Settings

folder, scene = Path(sys.argv[1]), sys.argv[2]

def note(line):
    with (folder / "notes").open("a") as notes:
        notes.write(line + "\\n")

def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)

class Service:
    def __init__(self, settings, say): pass
    def start(self): note("service")
    def client(self): return None

class Demo:
    site_url = "http://127.0.0.1:20000/"
    def __init__(self, client, report, console): self.report = report
    def run(self):
        note("demo")
        if scene == "fails":
            raise CommandFailed("the [/red] page differs")
        if scene == "waits":
            wait_for("never")
        for step in self.report.steps:
            with self.report.step(step.name):
                pass

cleanings = 0
def clean_up(settings, say):
    global cleanings
    cleanings += 1
    note(f"cleaning {cleanings}")
    if cleanings == 2 and scene == "waits":
        wait_for("go-on")
    note(f"cleaned {cleanings}")

demo_run.clean_up = clean_up
demo_run.build_missing_images = lambda settings, say: note("images")
demo_run.DemoService, demo_run.Demo = Service, Demo
console, keep = Console(width=200), sys.argv[3] == "keep"
sys.exit(demo_run.run_demo(Settings(state_dir=folder), console, keep=keep))
"""
_BEFORE = ["cleaning 1", "cleaned 1", "images", "service", "demo"]
_AFTER = ["cleaning 2", "cleaned 2"]


class Run:
    """A demo as a process of its own."""

    def __init__(self, folder: Path, scene: str, keep: str = "") -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(folder), scene, keep],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "SUDO_USER": "anna"},
        )

    @property
    def notes(self) -> list[str]:
        file = self.folder / "notes"
        return file.read_text().splitlines() if file.exists() else []

    def wait_for(self, note: str) -> None:
        wait_until(lambda: note in self.notes, timeout=60, what=f"the demo says {note}")

    def end(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextmanager
def running(folder: Path, scene: str, keep: str = "") -> Iterator[Run]:
    run = Run(folder, scene, keep)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()


def test_a_demo_that_holds_cleans_up(tmp_path: Path) -> None:
    with running(tmp_path, "holds") as run:
        status, said = run.end()
    assert status == HELD, said
    assert run.notes == _BEFORE + _AFTER
    assert (tmp_path / "demo" / "report.json").exists()


def test_a_demo_that_fails_says_why_and_cleans_up(tmp_path: Path) -> None:
    with running(tmp_path, "fails", "keep") as run:
        status, said = run.end()
    assert status == FAILED
    assert "the [/red] page differs" in said
    assert run.notes == _BEFORE + _AFTER


def test_a_kept_demo_leaves_all_up_and_says_how_to_look(tmp_path: Path) -> None:
    with running(tmp_path, "holds", "keep") as run:
        status, said = run.end()
    assert status == HELD
    assert run.notes == _BEFORE
    assert "sudo env MANAGED_STATE_DIR=" in said
    assert "http://127.0.0.1:20000/" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_and_no_other_one_stops_the_cleaning(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path, "waits", "keep") as run:
        run.wait_for("demo")
        run.process.send_signal(number)
        run.wait_for("cleaning 2")
        for another in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            run.process.send_signal(another)
        (tmp_path / "go-on").touch()
        status, said = run.end()
    assert status == INTERRUPTED, said
    assert run.notes == _BEFORE + _AFTER
    assert "cleaning up" in said


def test_a_terminal_that_is_gone_does_not_keep_it_from_cleaning_up(tmp_path: Path) -> None:
    with running(tmp_path, "waits") as run:
        run.wait_for("demo")
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.process.send_signal(signal.SIGHUP)
        (tmp_path / "go-on").touch()
        run.process.wait(60)
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
