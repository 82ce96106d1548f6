"""Keeps a lease while a step works, flushes its events, and stops the work when the lease is gone.

A lease that could not be renewed two thirds into its time may soon be another worker's: then the
step's child processes are ended and nothing is written any more. One thread renews; another one
watches it, because a database that hangs would keep the first from seeing the time pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType

import structlog

from managed.domain.errors import Json, LeaseLost, ManagedError, Unavailable
from managed.domain.events import NewEvent
from managed.domain.jobs import Job
from managed.ports import ChildProcesses, Clock, JobStore, Stopwatch

log = structlog.get_logger()

_BEAT_SECONDS = 0.2
_FLUSH_AT = 500


class Heartbeat:
    """A context manager around the work on one claimed job."""

    def __init__(
        self,
        job: Job,
        store: JobStore,
        children: ChildProcesses,
        clock: Clock,
        stopwatch: Stopwatch,
        lease_for: timedelta,
    ) -> None:
        self._job = job
        self._store = store
        self._children = children
        self._clock = clock
        self._stopwatch = stopwatch
        self._lease_for = lease_for
        self._renewed_at = stopwatch()
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._events: list[NewEvent] = []
        self._child: Mapping[str, Json] | None = None
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._met_outage = False
        self._beating = self._thread(self._beat, "heartbeat")
        self._watching = self._thread(self._watch, "lease-watch")

    def __enter__(self) -> Heartbeat:
        self._beating.start()
        self._watching.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends when the last renewal has, or when the lease is lost: a thread that hangs in the
        database is left behind.
        """
        self._stop.set()
        self._watching.join()
        if not self.is_lost:
            self.flush()

    @property
    def is_lost(self) -> bool:
        return self._lost.is_set()

    @property
    def has_met_outage(self) -> bool:
        """Has the database been away since the last renewal? Then that is why no other came."""
        return self._met_outage

    def emit(self, event: str, data: Mapping[str, Json]) -> None:
        """Add to the job's log; written within a fraction of a second, in order."""
        with self._lock:
            self._events.append(NewEvent(self._clock(), event, data))
            many = len(self._events) >= _FLUSH_AT
        if many:
            self._flush_soon()

    def flush(self) -> None:
        """Write what has been emitted; raises LeaseLost when it is no longer ours to write. What
        could not be written is kept for the next time.
        """
        with self.said() as pending:
            if pending:
                self._store.append_events(self._job, pending)

    @contextmanager
    def said(self) -> Iterator[Sequence[NewEvent]]:
        """What has been emitted and is not written yet, for whoever writes it inside: all of it.
        It is kept for the next time when that fails. Raises what `flush` raises.
        """
        while not self._flushing.acquire(timeout=_BEAT_SECONDS):
            self.require_lease()
        try:
            with self._lock:
                pending, self._events = self._events, []
            try:
                yield pending
            except BaseException:
                with self._lock:
                    self._events[:0] = pending
                raise
        finally:
            self._flushing.release()

    def register_child(self, group: int) -> None:
        """Remember the process group before it works; a successor ends it if we die."""
        self._child = self._children.describe(group)
        if self.is_lost:
            self._children.end(self._child)
        self.require_lease()
        self._store.record_child(self._job, self._child)

    def require_lease(self) -> None:
        """LeaseLost unless the lease is surely ours at this moment. The time is looked at here as
        well: after a stand-still of the process its work may go on before its threads do.
        """
        if not self.is_lost and self._is_overdue():
            self._give_up("the worker stood still for too long")
        if self.is_lost:
            job_id = self._job.job_id
            raise LeaseLost(f"the lease of job {job_id} could not be kept", job_id=job_id)

    def _flush_soon(self) -> None:
        """A step does not fail because its log cannot be written at this moment."""
        try:
            self.flush()
        except LeaseLost:
            raise
        except ManagedError as error:
            log.warning("events_kept_back", job_id=self._job.job_id, error=error.code)

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT_SECONDS):
            try:
                now = self._stopwatch()
                if now - self._renewed_at >= self._lease_for.total_seconds() / 3:
                    self._store.renew(self._job, self._clock(), self._lease_for)
                    self._renewed_at = now
                    self._met_outage = False
                self.flush()
            except LeaseLost:
                return self._give_up("another worker has the job")
            except ManagedError as error:
                self._met_outage |= isinstance(error, Unavailable)
                log.warning("heartbeat_failed", job_id=self._job.job_id, error=error.code)
            except Exception:
                log.exception("heartbeat_defect", job_id=self._job.job_id)
        return None

    def _watch(self) -> None:
        """Goes on after the work's end until the last renewal has ended."""
        is_over = False
        while not is_over:
            is_over = self._stop.wait(_BEAT_SECONDS) and self._has_stopped_beating()
            if self._is_overdue():
                return self._give_up("the lease could not be renewed in time")
        return None

    def _is_overdue(self) -> bool:
        return self._stopwatch() - self._renewed_at >= self._lease_for.total_seconds() * 2 / 3

    def _has_stopped_beating(self) -> bool:
        self._beating.join(_BEAT_SECONDS)
        return not self._beating.is_alive()

    def _give_up(self, reason: str) -> None:
        self._lost.set()
        log.warning("lease_lost", job_id=self._job.job_id, reason=reason)
        if self._child is not None:
            self._children.end(self._child)

    def _thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        return threading.Thread(target=target, name=f"{name}-{self._job.job_id}", daemon=True)
