"""A demo with small stand-ins for its parts, as the program of a process of its own.

Such processes are forked from one that has imported all they need: the imports cost seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console

from managed.domain.errors import CommandFailed
from managed.lab import demo_run
from managed.lab.demo_helpdesk import DemoHelpdesk
from managed.lab.demo_report import DemoReport
from managed.settings import Settings
from tests.support.waiting import wait_until

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["__main__", __name__])


def demo(folder: Path, scene: str, keep: bool, output: Connection) -> None:
    """Everything that the demo does is a line in the file `notes`; what is to hold it up waits for
    a file. What it says goes to `output`. It heeds signals, also where whoever runs the tests
    ignores them (nohup).
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    os.environ["SUDO_USER"] = "anna"
    stage = _Stage(folder, scene)
    stand_ins = {
        "clean_up": stage.clean_up,
        "build_missing_images": lambda _settings, _say: stage.note("images"),
        "DemoService": stage.service,
        "Demo": stage.demo,
    }
    for name, stand_in in stand_ins.items():
        assert hasattr(demo_run, name)
        setattr(demo_run, name, stand_in)
    sys.exit(demo_run.run_demo(Settings(state_dir=folder), Console(width=200), keep=keep))


class _Stage:
    def __init__(self, folder: Path, scene: str) -> None:
        self._folder, self._scene = folder, scene
        self._cleanings = 0

    def note(self, line: str) -> None:
        with (self._folder / "notes").open("a") as notes:
            notes.write(line + "\n")

    def wait_for(self, name: str) -> None:
        wait_until((self._folder / name).exists, timeout=60, what=name)

    def clean_up(self, _settings: Settings, _say: Callable[[str], None]) -> None:
        self._cleanings += 1
        self.note(f"cleaning {self._cleanings}")
        if self._cleanings == 2 and self._scene == "waits":
            self.wait_for("go-on")
        self.note(f"cleaned {self._cleanings}")

    def service(self, _settings: Settings, _say: Callable[[str], None]) -> _Service:
        return _Service(self)

    def demo(
        self, _client: None, _helpdesk: DemoHelpdesk, report: DemoReport, _console: Console
    ) -> _Demo:
        return _Demo(self, self._scene, report)


class _Service:
    def __init__(self, stage: _Stage) -> None:
        self._stage = stage

    def start(self) -> None:
        self._stage.note("service")

    def client(self) -> None:
        return None


class _Demo:
    site_url = "http://127.0.0.1:20000/"

    def __init__(self, stage: _Stage, scene: str, report: DemoReport) -> None:
        self._stage, self._scene, self._report = stage, scene, report

    def run(self) -> None:
        self._stage.note("demo")
        if self._scene == "fails":
            raise CommandFailed("the [/red] page differs")
        if self._scene == "waits":
            self._stage.wait_for("never")
        for step in self._report.steps:
            with self._report.step(step.name):
                pass
