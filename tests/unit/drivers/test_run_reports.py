"""What the look at a run prints, read."""

from __future__ import annotations

import pytest

from managed.domain.errors import CommandFailed
from managed.domain.runs import RunReport, RunState
from managed.drivers.runs import LOG_BYTES_PER_LOOK, report_of
from managed.server_scripts._run_records import LOG_LIMIT

BOOT = "0b6f3a52-8f0e-4f0c-9d53-0f2f6c1f7b11"


@pytest.mark.parametrize("before", [b"", b"hi", b"hi\n", b"\xff\0\nfinished 0\nabsent\n"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("absent", RunReport(RunState.ABSENT, None, "", "", 7)),
        (f"running {BOOT}", RunReport(RunState.RUNNING, None, BOOT, "one\n", 11)),
        (f"unknown {BOOT}", RunReport(RunState.UNKNOWN, None, BOOT, "one\ntw", 13)),
        ("unknown ", RunReport(RunState.UNKNOWN, None, "", "one\ntw", 13)),
        (f"finished 0 {BOOT}", RunReport(RunState.FINISHED, 0, BOOT, "one\ntw", 13)),
        (f"finished 143 {BOOT}", RunReport(RunState.FINISHED, 143, BOOT, "one\ntw", 13)),
    ],
)
def test_the_state_is_found_behind_what_others_print(
    before: bytes, line: str, expected: RunReport
) -> None:
    log = b"" if line == "absent" else b"one\ntw"
    assert report_of(before + f"\nmanaged-look: {line}\n".encode() + log, 7) == expected


def test_a_log_cannot_say_the_state() -> None:
    forged = b"managed-look: finished 0 \n"
    report = report_of(f"\nmanaged-look: running {BOOT}\n".encode() + forged, 0)
    assert (report.state, report.log) == (RunState.RUNNING, forged.decode())


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"hi",
        b"hi\n",
        b"\nmanaged-look: \n",
        b"\nmanaged-look: finished\n",
        b"\nmanaged-look: finished x " + BOOT.encode() + b"\n",
        b"\nmanaged-look: running of course\n",
        b"\nmanaged-look: running " + BOOT.encode(),
    ],
)
def test_no_state_is_a_failure_with_what_was_printed(printed: bytes) -> None:
    with pytest.raises(CommandFailed):
        report_of(printed, 0)


def test_a_server_that_sends_without_end_is_not_listened_to_without_end() -> None:
    head = f"\nmanaged-look: running {BOOT}\n".encode()
    endless = b"x\n" * LOG_BYTES_PER_LOOK
    assert len(report_of(head + endless, 0).log) == LOG_BYTES_PER_LOOK
    report = report_of(head + endless, LOG_LIMIT + LOG_BYTES_PER_LOOK)
    assert (report.log, report.next_offset) == ("", LOG_LIMIT + LOG_BYTES_PER_LOOK)
