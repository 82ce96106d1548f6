"""An installation whose messages go to a real SMTP server and a stand-in receiver of webhooks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database

from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.jobs import Job, JobKind, JobStatus
from managed.domain.notifications import Incident, Occasion, Target, TargetKind, Telling, failed_job
from managed.domain.secrets import Secret, SecretPurpose
from managed.settings import Settings
from managed.storage.database import writing
from managed.storage.vault import create_master_key
from managed.wiring import Installation
from tests.support.jobs import JobBench
from tests.support.mail_server import Mailbox, mail_server
from tests.support.webhook_receiver import StandInReceiver, serving
from workers.notices import Notices

KEY = Secret("the webhook's key")
ANNA = Customer("c0000000-0000-4000-8000-000000000001", "Anna", "anna@example.org")
BERT = Customer("c0000000-0000-4000-8000-000000000002", "Bert", "bert@example.org")
PLAN = Plan("b0000000-0000-4000-8000-000000000001", "managed", PlanKind.MANAGED)


@dataclass
class Stage:
    """An installation with a mailbox and a webhook's receiver on the other side."""

    bench: JobBench
    settings: Settings
    hook_url: str
    receiver: StandInReceiver
    mailbox: Mailbox = field(default_factory=Mailbox)

    def __post_init__(self) -> None:
        self.installation = Installation(self.settings, self.bench.database, self.bench.clock)
        self.receiver.now = lambda: self.now.timestamp()

    @property
    def now(self) -> datetime:
        now: datetime = self.bench.clock()
        return now

    def add_mail(self, address: str = "ops@example.org", customer: Customer | None = None) -> str:
        return self.add(TargetKind.EMAIL, address, customer)

    def add_webhook(self) -> str:
        return self.add(TargetKind.WEBHOOK, self.hook_url)

    def add(
        self,
        kind: TargetKind,
        address: str,
        customer: Customer | None = None,
        occasions: frozenset[Occasion] = frozenset(Occasion),
    ) -> str:
        customer_id = customer.customer_id if customer else None
        target = Target(str(uuid.uuid4()), kind, address, occasions, customer_id, self.now)
        with writing(self.bench.database) as connection:
            self.installation.targets.add(connection, target)
            self.installation.vault.keep_within(
                connection, target.target_id, SecretPurpose.WEBHOOK_KEY, KEY
            )
        return target.target_id

    def add_customers(self, *customers: Customer) -> None:
        with writing(self.bench.database) as connection:
            for customer in customers:
                self.installation.customers.add(connection, customer, self.now)

    def add_server_of(self, customer: Customer, name: str, plan: Plan | None = None) -> str:
        server_id = self.bench.add_server(name)
        with writing(self.bench.database) as connection:
            self.installation.customers.place(
                connection,
                self.bench.inventory.get(server_id),
                customer.customer_id,
                plan.plan_id if plan else None,
                self.now,
            )
        return server_id

    def end(self, status: JobStatus = JobStatus.FAILED, **options: Any) -> str:
        """A job comes to this end; returns its id."""
        job = self.bench.submit(**options)
        claimed = self.bench.store.claim(job.job_id, "w", self.now, timedelta(minutes=1))
        assert claimed is not None
        self.bench.store.finish(claimed[0], status, self.now)
        return job.job_id

    def incident(self, number: int) -> Incident:
        """As a failed job of this number would be one."""
        job_id, server_id, now = f"job {number}", self.bench.server_id, self.now
        job = Job(job_id, server_id, JobKind.PATCH, 1, JobStatus.FAILED, {}, now, now)
        return failed_job(job, "", now)

    def tell(self) -> None:
        """What a clock does that has just been started, without threads."""
        Notices(self.installation, start=lambda work: work()).tell(self.now)

    def statuses(self) -> list[Telling]:
        return [record.status for record in self.installation.notifications.find()]


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Iterator[Stage]:
    master_key = tmp_path / "master.key"
    create_master_key(master_key)
    mailbox, receiver = Mailbox(), StandInReceiver(KEY)
    with ExitStack() as stack:
        mail = stack.enter_context(mail_server(mailbox))
        url = stack.enter_context(serving(receiver))
        settings = Settings(
            master_key_file=master_key,
            smtp_host=mail.host,
            smtp_port=mail.port,
            smtp_tls="none",
            smtp_from=mail.sender,
            public_url="https://managed.example.org/",
            webhooks_to_private_addresses=True,
        )
        yield Stage(JobBench(database), settings, url, receiver, mailbox)
