"""What people see of a job while it runs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from managed.lab.job_display import JobDisplay

PROGRESS = "patch_progress"


class Clock:
    """A clock that stands until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_in_a_log_long_work_gets_a_line_now_and_then() -> None:
    written, clock = io.StringIO(), Clock()
    display = JobDisplay(Console(file=written, width=80), "patch", clock=clock)
    with display:
        for percent in range(60):
            clock.now += 1
            display.show({"type": PROGRESS, "data": {"percent": percent}})
    lines = [line.split() for line in written.getvalue().splitlines()]
    assert lines == [
        ["20.0", "s", "patch", "19", "%"],
        ["40.0", "s", "patch", "39", "%"],
        ["60.0", "s", "patch", "59", "%"],
    ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (("warning", {"message": "a \\[/nope] b"}), "0.0 s warning a \\[/nope] b"),
        (("warning", {"message": "ends with \\"}), "0.0 s warning ends with \\"),
        (("step_failed", {"step": "x", "detail": "[/]{step}"}), "0.0 s failed x: [/]{step}"),
        (("playbook_task", {"task": "[/nope]"}), None),
        ((PROGRESS, {"percent": "[/nope]"}), None),
        (("install_step", {"name": "a \x1b[2J\x9b1mb"}), "0.0 s a [2J1mb"),
        (("warning", {"message": "\x1b]0;title\x07\x1b[5n"}), "0.0 s warning ]0;title[5n"),
        (("run_output", {"lines": ["\x1b[31mred\r\x08[bold]"]}), "[31mred[bold]"),
        (("playbook_output", {"text": "\x1bc\x7fgone"}), "cgone"),
    ],
)
def test_what_servers_say_is_text(event: tuple[str, dict[str, Any]], line: str | None) -> None:
    written = io.StringIO()
    console = Console(file=written, width=80)
    with JobDisplay(console, "patch", verbose=True, clock=Clock()) as display:
        display.show({"type": event[0], "data": event[1]})
    assert " ".join(written.getvalue().split()) == (line or "")


def test_on_a_terminal_progress_is_text_too() -> None:
    written = io.StringIO()
    console = Console(file=written, width=80, force_terminal=True)
    with JobDisplay(console, "patch", clock=Clock()) as display:
        display.show({"type": PROGRESS, "data": {"percent": "[/nope]\x1b[5n"}})
    assert "patch [/nope][5n %" in written.getvalue()
    assert "\x1b[5n" not in written.getvalue()


def test_steps_always_get_a_line_and_markup_in_them_is_text() -> None:
    written = io.StringIO()
    with JobDisplay(Console(file=written, width=80), "patch", clock=Clock()) as display:
        display.show({"type": "step_started", "data": {"step": "update"}})
        failed = {"step": "update", "detail": "apt [red]broke[/]"}
        display.show({"type": "step_failed", "data": failed})
    lines = [" ".join(line.split()) for line in written.getvalue().splitlines()]
    assert lines == ["0.0 s update", "0.0 s failed update: apt [red]broke[/]"]
