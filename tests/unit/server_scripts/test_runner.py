"""Which records of runs are swept off a server: old ones of runs that have ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from managed.server_scripts import _run_records, runner
from managed.server_scripts._run_records import start_tick, this_boot

DAY = 24 * 3600


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (runner, _run_records):
        monkeypatch.setattr(module, "RUNS", str(tmp_path))
    return tmp_path


def leave(place: Path, days: float, **files: str) -> None:
    place.mkdir()
    for name, content in files.items():
        (place / name).write_text(content)
    then = time.time() - days * DAY
    os.utime(place, (then, then))


def test_old_records_go_and_young_or_running_ones_stay(records: Path) -> None:
    supervisor = f"{os.getpid()} {start_tick(os.getpid())}\n"
    leave(records / "failed.take.1", 15, status="1\n", pid=supervisor, boot_id=this_boot())
    leave(records / "lost.take.1", 15, pid="1 1\n", boot_id="an earlier boot\n")
    leave(records / ".prepared-cut-off", 15, script="#!/bin/sh\n")
    leave(records / "running.take.1", 15, pid=supervisor, boot_id=this_boot())
    leave(records / "young.take.1", 13, status="1\n")
    (records / "a file").touch()

    runner.sweep()

    assert {path.name for path in records.iterdir()} == {
        "running.take.1", "young.take.1", "a file",
    }  # fmt: skip


def test_a_record_that_cannot_be_removed_keeps_no_run_from_starting(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_record: str) -> None:
        raise PermissionError

    leave(records / "failed.take.1", 15, status="1\n")
    monkeypatch.setattr(runner, "remove", fail)

    runner.sweep()

    assert (records / "failed.take.1").exists()
