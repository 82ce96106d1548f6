"""What stands in the log for people: whatever strangers send, a line stays one plain line."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from managed.logs import configure_logs
from managed.settings import Settings

HOSTILE = "/v1/x\x1b[31mred\x00\x9b\u202e\n2026-11-25 [error] api_defect"


@pytest.fixture
def text_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a process of its own would write to its standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    configure_logs(Settings(log_format="text"))
    yield written
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


def test_what_steers_terminals_is_shown_escaped(text_logs: io.StringIO) -> None:
    structlog.get_logger().info("request", path=HOSTILE, parts=[HOSTILE, "\udc80"])
    logging.getLogger("uvicorn.error").warning("odd request: %s", HOSTILE)
    lines = text_logs.getvalue().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.isprintable()
        assert "x1b[31mred" in line


def test_tracebacks_keep_their_lines_and_nothing_else(text_logs: io.StringIO) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        structlog.get_logger().exception("api_defect")
    written = text_logs.getvalue()
    assert "\nTraceback (most recent call last):\n" in written
    assert "\x1b" not in written
    assert r"ValueError: /v1/x\x1b[31mred" in written
