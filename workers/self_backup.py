"""Backs the control plane up when that is due, beside the clock's other duties."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from managed.domain.errors import ManagedError
from managed.wiring import Installation

log = structlog.get_logger()


class SelfBackup:
    """One copy at a time, in a thread of its own: it may take long, and the clock waits for
    nothing. Two clocks that both take one do no harm.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._every = timedelta(hours=installation.settings.self_backup_hours)
        self._work: threading.Thread | None = None

    def start_if_due(self, now: datetime) -> None:
        """An installation without a bucket, or with 0 hours between copies, takes none."""
        settings = self._installation.settings
        is_busy = self._work is not None and self._work.is_alive()
        if is_busy or not self._every or not settings.s3_endpoint:
            return
        if self._installation.self_backup.state().is_due(self._every, now):
            self._work = threading.Thread(target=self._back_up, name="self-backup", daemon=True)
            self._work.start()

    def wait(self) -> None:
        """Until the copy that is being taken, if any, is done."""
        if self._work is not None:
            self._work.join()

    def _back_up(self) -> None:
        try:
            manifest = self._installation.copies.take()
        except ManagedError as error:
            log.error("self_backup_failed", error=error.code, detail=error.message)
            self._note(error.message)
        except Exception as error:
            log.exception("self_backup_defect")
            self._note(type(error).__name__)
        else:
            log.info("self_backup_taken", copy=manifest.name, size=manifest.sealed_size)
            self._prune()

    def _prune(self) -> None:
        """Copies that stay too long are no failure of the one that was taken."""
        try:
            for name in self._installation.copies.prune(self._installation.keep_rule):
                log.info("self_backup_removed", copy=name)
        except ManagedError as error:
            log.warning("self_backups_not_pruned", error=error.code, detail=error.message)

    def _note(self, error: str) -> None:
        """Also what kept a copy from being begun, a master key that is gone, say."""
        with suppress(ManagedError):
            self._installation.self_backup.note_failure(error, self._installation.clock())
