"""What an installation has in its database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from sqlalchemy import Engine as Database

from managed.domain.errors import MissingRequirement
from managed.settings import Settings
from managed.storage.access import Access
from managed.storage.audit import AuditLog
from managed.storage.catalogue import Catalogue
from managed.storage.copies.state import SelfBackupRecord
from managed.storage.customers import Customers
from managed.storage.database import reading
from managed.storage.events import EventLog
from managed.storage.intake import Intake
from managed.storage.inventory import Inventory
from managed.storage.job_queue import JobQueue
from managed.storage.notification_records import NotificationRecords
from managed.storage.notification_targets import NotificationTargets
from managed.storage.numbers import Numbers, read_numbers
from managed.storage.outbox import Outbox
from managed.storage.overview import Overview
from managed.storage.panel_access import PanelAccess
from managed.storage.replies import Replies
from managed.storage.requests import Requests
from managed.storage.schema import is_behind
from managed.storage.sessions import SessionRecords
from managed.storage.surveys import SurveyRecords
from managed.storage.vault import (
    SealedVault,
    load_master_key,
)
from managed.storage.waiting import WaitingJobs
from managed.storage.windows import Windows


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Records:
    """An opened database, with everything that is kept in it."""

    settings: Settings
    database: Database
    clock: Callable[[], datetime] = utc_now

    @cached_property
    def queue(self) -> JobQueue:
        return JobQueue(self.database)

    @cached_property
    def events(self) -> EventLog:
        return EventLog(self.database)

    @cached_property
    def inventory(self) -> Inventory:
        return Inventory(self.database)

    @cached_property
    def waiting(self) -> WaitingJobs:
        return WaitingJobs(self.database)

    @cached_property
    def sessions(self) -> SessionRecords:
        return SessionRecords(self.database)

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.database)

    @cached_property
    def customers(self) -> Customers:
        return Customers(self.database)

    @cached_property
    def access(self) -> Access:
        return Access(self.database)

    @cached_property
    def panel_access(self) -> PanelAccess:
        return PanelAccess(self.database)

    @cached_property
    def overview(self) -> Overview:
        return Overview(self.database)

    @cached_property
    def audit(self) -> AuditLog:
        return AuditLog(self.database)

    @cached_property
    def windows(self) -> Windows:
        return Windows(self.database)

    @cached_property
    def surveys(self) -> SurveyRecords:
        return SurveyRecords(self.database)

    @cached_property
    def targets(self) -> NotificationTargets:
        return NotificationTargets(self.database)

    @cached_property
    def notifications(self) -> NotificationRecords:
        return NotificationRecords(self.database)

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(self.database)

    @cached_property
    def intake(self) -> Intake:
        return Intake(self.database)

    @cached_property
    def requests(self) -> Requests:
        return Requests(self.database)

    @cached_property
    def replies(self) -> Replies:
        return Replies(self.database)

    @cached_property
    def vault(self) -> SealedVault:
        return SealedVault(self.database, load_master_key(self.settings.master_key), self.clock)

    @cached_property
    def self_backup(self) -> SelfBackupRecord:
        return SelfBackupRecord(self.database)

    def numbers(self, now: datetime) -> Numbers:
        return read_numbers(self.database, now)

    def require_schema(self) -> None:
        with reading(self.database) as connection:
            behind = is_behind(connection)
        if behind:
            raise MissingRequirement(
                "the database has the schema of an older version", hint="Run: managed migrate"
            )
