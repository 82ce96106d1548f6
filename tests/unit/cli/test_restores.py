"""What somebody at the terminal is told after files were restored."""

from __future__ import annotations

from typing import Any

import pytest

from managed.cli import restores


def ended_job(**result: Any) -> dict[str, Any]:
    usual = {"restored": [], "kept": 0, "safety_snapshot": None}
    return {
        "steps": [{"name": "choose", "result": {}}, {"name": "restore", "result": usual | result}]
    }


def test_it_says_where_the_files_are(capsys: pytest.CaptureFixture[str]) -> None:
    restores.say_where(ended_job(restored=["/var/restored/job/srv/[red]page", "/b\x1b[2J"]))

    assert capsys.readouterr().out == "/var/restored/job/srv/[red]page\n/b[2J\n"


def test_in_place_it_says_what_stayed_and_how_to_go_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    restores.say_where(ended_job(restored=["/srv"], kept=2, safety_snapshot="ab" * 32))

    said = capsys.readouterr().out
    assert "2 files there are not in the backup and were kept" in said
    assert f"snapshot {'ab' * 6}." in said
