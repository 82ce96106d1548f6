"""A control plane with something in every table, its copies in a real bucket, and new databases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Engine as Database
from sqlalchemy import create_engine, insert, select, text, update

from managed.domain.access import Permission, Role, User
from managed.domain.audit import Deed
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.events import NewEvent
from managed.domain.jobs import Job, JobKind, JobStatus, StepResult, StepStatus
from managed.domain.questions import TimePassed
from managed.domain.rescue import RescueSession
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.servers import Node, ServerStatus
from managed.domain.snapshots import KeptObject, SnapshotRecord
from managed.domain.surveys import Finding, Survey, SurveyOutcome
from managed.domain.tokens import ApiToken, new_token
from managed.domain.windows import Opening, Window, WindowOwner
from managed.storage import audit, tables
from managed.storage.access import Access
from managed.storage.catalogue import Catalogue
from managed.storage.customers import Customers
from managed.storage.database import writing
from managed.storage.idempotency import keep_answer
from managed.storage.sessions import SessionRecords
from managed.storage.surveys import SurveyRecords
from managed.storage.tables import metadata, servers
from managed.storage.vault import SealedVault
from managed.storage.windows import MissedWindow, Windows
from tests.support.jobs import START, JobBench

MASTER_KEY = bytes(range(32))
LOGIN_KEY = Secret("a private key\nof two lines \u2028 \U0001f511")
_LEASE = timedelta(seconds=30)
_TARGET = {"id": "t-1", "kind": "email", "address": "a@example.org", "occasions": ["job-failed"]}
_NOTICE = {
    "id": "n-1",
    "target_id": "t-1",
    "occasion": "job-failed",
    "subject_id": "j-1",
    "facts": {"kind": "patch"},
    "delivery_id": "d-1",
}
_REQUEST = {
    "id": "r-1",
    "ticket_id": 81,
    "ticket_number": "10081",
    "title": "Hallo, bitte",
    "server_attribute": "shop",
    "by_email": True,
    "proposed_action": {"kind": "patch"},
    "rule": "update",
    "why": "it says so",
    "status": "open",
}
_ARTICLE = {
    "ticket_id": 81,
    "article_id": 104,
    "request_id": "r-1",
    "is_note": False,
    "sender": "asa@example.org",
    "text": "please update now",
}
_DELIVERY = {"id": "x-1", "body_sha256": "e" * 64, "outcome": "request", "request_id": "r-1"}
_REPLY = {
    "request_id": "r-1",
    "ticket_id": 81,
    "recipient": "asa@example.org",
    "subject": "Re: Hallo",
    "text": "done",
}


class PopulatedControlPlane:
    """Three servers: one whose backup succeeded, two that are free for jobs."""

    def __init__(self, database: Database) -> None:
        self.bench = JobBench(database)
        self.database = database
        self.vault = SealedVault(database, MASTER_KEY, self.bench.clock)
        self.second, self.third = self.bench.add_server("2"), self.bench.add_server("3")
        self._people()
        self.vault.keep(self.bench.server_id, SecretPurpose.LOGIN_KEY, LOGIN_KEY)
        for purpose in (SecretPurpose.REPOSITORY_PASSWORD, SecretPurpose.GATEWAY_PASSWORD):
            self.vault.keep(self.bench.server_id, purpose, Secret(f"{purpose}-{'x' * 32}"))
        self.backup = self._backup()
        self._sessions_and_answers()
        self._access_and_audit()
        self._notices_and_tickets()

    def running(self, server_id: str, kind: JobKind = JobKind.RESTORE) -> Job:
        """A worker is in a step of it."""
        job = self._claimed(self.bench.submit(kind, server_id=server_id))
        return self.bench.store.start_step(job, "lay_down", self.bench.clock())

    def waiting(self, server_id: str) -> Job:
        """Its server works for it; nobody holds anything."""
        job, now = self.running(server_id, JobKind.PATCH), self.bench.clock()
        until = now + timedelta(hours=1)
        self.bench.store.park(job, TimePassed(), until, interruptible=False, now=now)
        return job

    def _people(self) -> None:
        customers, windows, now = Customers(self.database), Windows(self.database), START
        with writing(self.database) as connection:
            customers.add(connection, Customer("c-1", "Åsa Öst", "asa@example.org"), now)
            customers.add_plan(connection, Plan("p-1", "plus", PlanKind.MANAGED), now)
            window = Window(
                "w-1",
                WindowOwner.PLAN,
                "p-1",
                JobKind.PATCH,
                "FREQ=DAILY;BYHOUR=2",
                "Europe/Berlin",
                120,
                date(2026, 1, 1),
                now,
            )
            windows.add(connection, window)
            changed = replace(window, minutes=180, created_at=now + timedelta(seconds=1))
            windows.change(connection, changed)
            connection.execute(update(servers).values(customer_id="c-1", plan_id="p-1"))
            past = {"server_id": self.second, "customer_id": "c-1", "plan_id": "p-0"}
            since, until = now - timedelta(days=2), now - timedelta(days=1)
            for table in (tables.past_placements, tables.past_management):
                given = {name: value for name, value in past.items() if name in table.c}
                connection.execute(insert(table).values(**given, since=since, until=until))
        self.bench.inventory.add_node(Node("n-1", "local", "qemu:///system", "/data"), now)
        missed = Opening(START - timedelta(hours=3), START - timedelta(hours=1))
        windows.record_missed(
            [MissedWindow(self.second, JobKind.PATCH, missed, "the server was busy", now)]
        )
        found = Finding(SurveyOutcome.WORK, "1 update", {"updates": 1, "held": ["vim"]})
        SurveyRecords(self.database).record(
            [Survey(self.third, JobKind.PATCH, missed, missed.starts_at, found)]
        )

    def _claimed(self, job: Job) -> Job:
        claimed = self.bench.store.claim(job.job_id, "worker", self.bench.clock(), _LEASE)
        assert claimed is not None
        return claimed[0]

    def _backup(self) -> Job:
        """A job that ended well, with events of three months and a warning."""
        job = self._claimed(self.bench.submit(JobKind.BACKUP))
        now = self.bench.clock()
        said = [
            NewEvent(now - timedelta(days=60 - day), "progress", {"percent": day, "odd": "\\n\n"})
            for day in range(60)
        ]
        self.bench.store.append_events(job, said)
        done = StepResult("take", StepStatus.DONE, 1, now, now, {"none": None, "list": [1, 2.5]})
        job = self.bench.store.record_step(job, done, ["a file changed while it was read"])
        self.bench.store.finish(job, JobStatus.SUCCEEDED, now)
        Catalogue(self.database).add(
            SnapshotRecord(
                snapshot_id="a" * 64,
                server_id=job.server_id,
                job_id=job.job_id,
                time=now,
                files=2**40,
                size=2**50,
                manifest=KeptObject("manifests/x", "b" * 64),
                layout=KeptObject("layouts/x", "c" * 64),
            )
        )
        return job

    def _sessions_and_answers(self) -> None:
        session = RescueSession(
            session_id=str(uuid.uuid4()),
            server_id=self.third,
            job_id=self.backup.job_id,
            host_key="ssh-ed25519 AAAA",
            status_before=ServerStatus.ACTIVE,
            started_at=START,
            expires_at=START + timedelta(hours=4),
        )
        SessionRecords(self.database).open(session)
        with writing(self.database) as connection:
            keep_answer(connection, "key-1", "d" * 64, {"status": 202}, START)

    def _access_and_audit(self) -> None:
        access = Access(self.database)
        kim = User("u-1", "kim@example.org", "Kim", Role.SUPPORT, None, START)
        token_id, token = new_token()
        until = START + timedelta(days=9)
        made = ApiToken(token_id, "u-1", "laptop", START, until, frozenset(Permission))
        with writing(self.database) as connection:
            access.add_user(connection, kim)
            access.add_token(connection, made, token)
            until = {"created_at": START, "expires_at": START + timedelta(days=1)}
            session = {"id": "f" * 64, "user_id": "u-1", "csrf": "c", "last_seen_at": START}
            connection.execute(insert(tables.panel_sessions).values(**session, **until))
            invitation = {"id": "e" * 64, "user_id": "u-1", **until}
            connection.execute(insert(tables.invitations).values(invitation))
            for reason in ("ticket 1", "ticket 2"):
                audit.record(connection, Deed(START, "kim", "submit_job", "s", reason, {"a": 1}))

    def _notices_and_tickets(self) -> None:
        delivery = {"id": "d-1", "target_id": "t-1", "state": "sent", "created_at": START}
        with writing(self.database) as connection:
            for table, row in (
                (tables.notification_targets, {**_TARGET, "created_at": START}),
                (tables.notification_deliveries, {**delivery, "ended_at": START}),
                (tables.notifications, {**_NOTICE, "server_id": self.second, "at": START}),
                (tables.requests, {**_REQUEST, "created_at": START}),
                (tables.request_articles, {**_ARTICLE, "written_at": START}),
                (tables.deliveries, {**_DELIVERY, "received_at": START}),
                (tables.replies, {**_REPLY, "created_at": START}),
            ):
                connection.execute(insert(table).values(row))


def contents(database: Database, *left_out: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in the order of its key, as the code reads them."""
    with database.connect() as connection:
        return {
            table.name: [
                tuple(row)
                for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in metadata.sorted_tables
            if table.name not in left_out
        }


@contextmanager
def new_postgres_database(cluster_url: str) -> Iterator[str]:
    """The URL of an empty database in the cluster."""
    name = f"fresh_{uuid.uuid4().hex[:8]}"
    admin = create_engine(cluster_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield str(cluster_url).replace("@/managed?", f"@/{name}?")
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()
