"""Structured logs on standard error: a static event and ids, as text or as JSON lines."""

from __future__ import annotations

import logging
import sys

import structlog

from managed.domain.text import escaped
from managed.settings import Settings

# Tracebacks; all else is one line.
_OF_SEVERAL_LINES = ("exception", "stack")


def configure_logs(settings: Settings) -> None:
    """Set up structlog and the standard library's logging for this process: what libraries say
    (uvicorn, Celery) comes out in the same form.
    """
    level = getattr(logging, settings.log_level.upper())
    rendering: list[structlog.typing.Processor]
    if settings.log_format == "json":
        rendering = [structlog.processors.JSONRenderer()]
    else:
        colours = sys.stderr.isatty()
        rendering = [_escape, structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0)]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)


def _escape(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Paths and errors hold what strangers have sent: nothing of it steers a terminal, or passes
    for a line of its own.
    """
    return {
        name: escaped(value, "\n\t" if name in _OF_SEVERAL_LINES else "")
        if isinstance(value, str)
        else value
        for name, value in event.items()
    }
