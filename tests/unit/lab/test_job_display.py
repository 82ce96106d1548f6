"""What people see of a job while it runs."""

from __future__ import annotations

import io

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


def test_steps_always_get_a_line_and_markup_in_them_is_text() -> None:
    written = io.StringIO()
    with JobDisplay(Console(file=written, width=80), "patch", clock=Clock()) as display:
        display.show({"type": "step_started", "data": {"step": "update"}})
        failed = {"step": "update", "detail": "apt [red]broke[/]"}
        display.show({"type": "step_failed", "data": failed})
    lines = [" ".join(line.split()) for line in written.getvalue().splitlines()]
    assert lines == ["0.0 s update", "0.0 s failed update: apt [red]broke[/]"]
