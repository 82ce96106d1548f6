"""When a part of the embedded service is started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from managed.drivers.server_process import ServerProcess
from managed.lab.service import EmbeddedService, Part
from managed.settings import Settings


def part_started_at(now: float) -> Part:
    process = ServerProcess("a part", ("true",), {}, Path("/dev/null"), lambda: True)
    return Part("a part", process, started=now)


def test_pauses_grow_while_a_part_keeps_ending() -> None:
    part, now, pauses = part_started_at(0.0), 0.0, []
    for _ in range(7):
        now = max(now, part.next_start) + 1
        part.count_failure(now)
        pauses.append(part.next_start - now)
    assert pauses == [2, 4, 8, 16, 30, 30, 30]


def test_what_happened_before_a_good_run_is_forgotten() -> None:
    part = part_started_at(0.0)
    for now in (1.0, 2.0, 3.0, 4.0):
        part.count_failure(now)
    part.count_failure(1000.0)
    assert part.next_start == 1002.0


def test_a_stop_whose_interrupt_python_lost_takes_hold_after_the_part_that_is_being_started(
    tmp_path: Path,
) -> None:
    service = EmbeddedService(Settings(state_dir=tmp_path), lambda _: None)
    service.stopped.set()
    process = ServerProcess("a part", ("sleep", "60"), {}, tmp_path / "log", lambda: True)
    try:
        with pytest.raises(KeyboardInterrupt):
            service._add("part", process)
    finally:
        service.stop()
    assert not process.is_running
