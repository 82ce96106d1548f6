"""Prometheus' own word on rules and on what it is told."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def require_content(*arguments: str, given: str | None = None) -> None:
    """promtool finds nothing wrong, not even in style; `given` is its standard input."""
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("there is no promtool here: make setup brings it, unless SKIP_APT was set")
    done = subprocess.run(
        [program, *arguments], input=given, capture_output=True, text=True, check=False
    )
    # It complains of style on standard error, with a status of its own.
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
