"""What routes reach: put together once from the installation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import Depends, Request
from sqlalchemy import Engine as Database

from api.metrics import Metrics
from managed.domain.connections import KeyPair
from managed.domain.errors import MissingRequirement
from managed.domain.jobs import JobKind
from managed.domain.notifications import TargetKind
from managed.domain.secrets import Secret
from managed.domain.servers import Node
from managed.ports import Notifier, ObjectStore
from managed.storage.access import Access
from managed.storage.audit import AuditLog
from managed.storage.catalogue import Catalogue
from managed.storage.customers import Customers
from managed.storage.events import EventLog
from managed.storage.intake import Intake
from managed.storage.inventory import Inventory
from managed.storage.job_queue import JobQueue, NewJob
from managed.storage.notification_records import NotificationRecords
from managed.storage.notification_targets import NotificationTargets
from managed.storage.overview import Overview
from managed.storage.panel_access import PanelAccess
from managed.storage.replies import Replies
from managed.storage.requests import Requests
from managed.storage.sessions import SessionRecords
from managed.storage.surveys import SurveyRecords
from managed.storage.vault import SealedVault
from managed.storage.windows import Windows
from managed.wiring import Installation


class NewJobFunction(Protocol):
    """`Installation.new_job`: a job of the present version of its workflow."""

    def __call__(
        self,
        server_id: str,
        kind: JobKind,
        parameters: dict[str, object],
        requested_by: str,
        run_key: str | None = None,
    ) -> NewJob: ...


@dataclass(frozen=True)
class Services:
    """`send` tells the workers of a job, after the commit. `webhook_secret` is what the helpdesk
    signs with (None: there is none), `tickets_zone` the zone of times in tickets. `shown_host_key`
    asks a server for the host key that it shows, without trusting it. `public_url` is where
    people reach the service, empty where that is not said. `check_node` raises what is wrong with a
    node, and `host_ports` offers ports of it for new servers.
    """

    database: Database
    queue: JobQueue
    events: EventLog
    inventory: Inventory
    catalogue: Catalogue
    sessions: SessionRecords
    customers: Customers
    access: Access
    audit: AuditLog
    panel_access: PanelAccess
    overview: Overview
    windows: Windows
    surveys: SurveyRecords
    targets: NotificationTargets
    notifications: NotificationRecords
    notifiers: Mapping[TargetKind, Notifier]
    intake: Intake
    requests: Requests
    replies: Replies
    webhook_secret: Secret | None
    tickets_zone: str
    vault: SealedVault
    objects: Callable[[], ObjectStore]
    clock: Callable[[], datetime]
    token: Secret
    metrics: Metrics
    new_job: NewJobFunction
    send: Callable[[str], None]
    shown_host_key: Callable[[str, int], str]
    new_key_pair: Callable[[], KeyPair]
    check_node: Callable[[Node], None]
    public_url: str
    host_ports: Callable[[Node], Iterator[int]]


def services_of(installation: Installation, send: Callable[[str], None]) -> Services:
    return Services(
        database=installation.database,
        queue=installation.queue,
        events=installation.events,
        inventory=installation.inventory,
        catalogue=installation.catalogue,
        sessions=installation.sessions,
        customers=installation.customers,
        access=installation.access,
        audit=installation.audit,
        panel_access=installation.panel_access,
        overview=installation.overview,
        windows=installation.windows,
        surveys=installation.surveys,
        targets=installation.targets,
        notifications=installation.notifications,
        notifiers=installation.notifiers,
        intake=installation.intake,
        requests=installation.requests,
        replies=installation.replies,
        webhook_secret=installation.webhook_secret,
        tickets_zone=installation.tickets_zone,
        vault=installation.vault,
        objects=lambda: installation.bucket,
        clock=installation.clock,
        token=_token(installation.settings.api_token),
        metrics=Metrics(
            _token(installation.settings.metrics_token), installation.numbers, installation.clock
        ),
        new_job=installation.new_job,
        send=send,
        shown_host_key=installation.shell.host_key,
        new_key_pair=installation.new_key_pair,
        check_node=installation.check_node,
        public_url=installation.settings.public_url.rstrip("/"),
        host_ports=installation.host_ports,
    )


def _token(path: Path) -> Secret:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise MissingRequirement(
            f"the token file {path} cannot be read: {error}",
            hint="`managed serve` makes it when it starts, and so does `managed migrate`.",
        ) from error
    if not token:
        raise MissingRequirement(f"the token file {path} is empty")
    return Secret(token)


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


ServicesDependency = Annotated[Services, Depends(services)]
