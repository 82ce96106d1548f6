"""The database's numbers as Prometheus reads them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from managed.domain.secrets import Secret
from managed.domain.surveys import SurveyOutcome
from managed.storage.numbers import Numbers

_FRESH_SECONDS: Final = 10.0

ReadNumbers = Callable[[datetime], Numbers]


class Metrics:
    """Whoever holds `token` may read them. However many ask, the database is asked every ten
    seconds at most.
    """

    def __init__(self, token: Secret, read: ReadNumbers, clock: Callable[[], datetime]) -> None:
        self.token = token
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._text = b""
        self._fresh_until = 0.0

    def text(self) -> bytes:
        """DatabaseUnavailable rather than numbers that are older."""
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                now = self._clock()
                registry = CollectorRegistry()
                registry.register(_Numbers(self._read(now), now))
                self._text = generate_latest(registry)
                self._fresh_until = time.monotonic() + _FRESH_SECONDS
            return self._text


class _Numbers(Collector):
    def __init__(self, numbers: Numbers, now: datetime) -> None:
        self._numbers = numbers
        self._now = now

    def collect(self) -> Iterator[Metric]:
        yield self._open_jobs()
        numbers = self._numbers
        yield _gauge(
            "managed_queue_oldest_seconds",
            "How long the job has waited for a worker that has waited longest; 0 without one.",
            self._age(numbers.oldest_unbegun),
        )
        yield _gauge(
            "managed_jobs_abandoned",
            "Running jobs whose worker has not renewed its lease.",
            numbers.abandoned,
        )
        yield _gauge(
            "managed_jobs_overdue",
            "Waiting jobs that are past their limit: the clock's poller should have woken them.",
            numbers.overdue_questions,
        )
        missed = GaugeMetricFamily(
            "managed_windows_missed_last_day",
            "Openings that started nothing on their server, recorded in the last 24 hours.",
            labels=["kind"],
        )
        for kind, number in numbers.missed_windows.items():
            missed.add_metric([kind], number)
        yield missed
        yield _gauge(
            "managed_windows_unreadable",
            "Windows that open no more: this version cannot follow their rule.",
            numbers.unreadable_windows,
        )
        surveys = GaugeMetricFamily(
            "managed_surveys_last_day",
            "What surveys have found on servers whose window opened in the last 24 hours.",
            labels=["outcome"],
        )
        for outcome in SurveyOutcome:
            surveys.add_metric([outcome.value], numbers.surveys.get(outcome, 0))
        yield surveys
        yield _gauge(
            "managed_paused_seconds",
            "For how long everything that is not urgent has been held back; 0 without a pause.",
            self._age(numbers.paused_since),
        )
        yield from self._backups()
        yield from self._self_backup()

    def _open_jobs(self) -> Metric:
        family = GaugeMetricFamily(
            "managed_jobs", "Open jobs by status and kind.", labels=["status", "kind"]
        )
        for (status, kind), number in self._numbers.open_jobs.items():
            family.add_metric([status, kind], number)
        return family

    def _backups(self) -> Iterator[Metric]:
        backups = self._numbers.backups
        yield _gauge("managed_servers_covered", "Servers on a managed plan.", backups.servers)
        yield _gauge(
            "managed_backup_oldest_seconds",
            "Age of the newest verified backup of the server that is worst off, among those that"
            " have one.",
            self._age(backups.oldest),
        )
        yield _gauge(
            "managed_servers_backup_late",
            "Servers without a verified backup of the last 26 hours, new ones left out.",
            backups.late,
        )
        yield _gauge(
            "managed_servers_never_backed_up",
            "Servers without any verified backup.",
            backups.never,
        )

    def _self_backup(self) -> Iterator[Metric]:
        state = self._numbers.self_backup
        yield _gauge(
            "managed_self_backup_age_seconds",
            "Age of the newest good copy of the control plane; infinite without one.",
            self._age(state.last_good_at) if state.last_good_at else math.inf,
        )
        yield _gauge(
            "managed_self_backup_failed",
            "Has the last try to copy the control plane failed? 1 or 0.",
            float(bool(state.last_error)),
        )

    def _age(self, since: datetime | None) -> float:
        return max(0.0, (self._now - since).total_seconds()) if since else 0.0


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
