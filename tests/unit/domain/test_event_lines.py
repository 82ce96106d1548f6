"""Events as lines for people."""

from __future__ import annotations

import pytest

from managed.domain.errors import Json
from managed.domain.event_lines import EventLine, Tone, event_line
from managed.storage.overview import PROGRESS_TYPES


@pytest.mark.parametrize(
    ("kind", "data", "line"),
    [
        ("step_started", {"step": "update"}, EventLine(Tone.PLAIN, "begins", "update")),
        (
            "step_failed",
            {"step": "update", "detail": "no space"},
            EventLine(Tone.BAD, "failed", "update: no space"),
        ),
        ("step_failed", {"detail": "no space"}, EventLine(Tone.BAD, "failed", "no space")),
        ("job_ended", {"status": "failed"}, EventLine(Tone.BAD, "ended", "failed")),
        ("job_ended", {"status": "succeeded"}, EventLine(Tone.GOOD, "ended", "succeeded")),
        (
            "undo_begun",
            {"verdict": "failed", "detail": "no space"},
            EventLine(Tone.BAD, "ends as failed", "no space"),
        ),
        ("patch_progress", {"percent": 4}, EventLine(Tone.PLAIN, "progress", "patch 4 %")),
        ("run_output", {"lines": ["a", 1]}, EventLine(Tone.PLAIN, "", "a\n1")),
        ("playbook_output", {"text": "\x1b[31mred"}, EventLine(Tone.PLAIN, "", "[31mred")),
        ("warning", {"message": "{step}\r{"}, EventLine(Tone.NOTICE, "warning", "{step}{")),
        ("something_new", {}, EventLine(Tone.PLAIN, "", "something new")),
    ],
)
def test_an_event_is_one_line_with_a_word_and_a_tone(
    kind: str, data: dict[str, Json], line: EventLine
) -> None:
    assert event_line(kind, data) == line


def test_every_kind_of_progress_that_is_looked_for_has_a_sentence() -> None:
    for kind in PROGRESS_TYPES:
        assert event_line(kind, {"name": "copy_files", "task": "t"}).word == "progress"


def test_a_line_has_an_end() -> None:
    assert len(event_line("playbook_output", {"text": "x" * 100_000}).text) == 4000
