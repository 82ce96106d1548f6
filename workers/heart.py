"""A worker's sign of life: its event loop turns, and it is connected to its broker."""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps
from prometheus_client import CollectorRegistry

from workers.listener import Beat

_EVERY_SECONDS: Final = 5.0
_LIMIT_SECONDS: Final = 30.0

REGISTRY: Final = CollectorRegistry()
BEAT: Final = Beat(
    "managed_worker_beat_timestamp_seconds",
    "When the worker's event loop last turned while it was connected to its broker.",
    REGISTRY,
    _LIMIT_SECONDS,
)


class Heart(bootsteps.StartStopStep):  # type: ignore[misc]
    """Beats between a connection's beginning and its end."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        BEAT.now()
        self._entry = consumer.timer.call_repeatedly(_EVERY_SECONDS, BEAT.now)

    def stop(self, consumer: Any) -> None:
        if self._entry is not None:
            self._entry.cancel()
