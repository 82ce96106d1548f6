"""The API over a real installation in a folder of the test's own; jobs are noted, not done."""

from __future__ import annotations

import shutil
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from managed.client import ManagedClient
from managed.domain.events import NewEvent
from managed.domain.incoming import judged
from managed.domain.jobs import Job, JobKind, JobStatus
from managed.domain.rescue import RescueSession
from managed.domain.servers import (
    Node,
    Server,
    ServerOrigin,
    ServerSpec,
    ServerStatus,
    disk_serial_for,
)
from managed.domain.snapshots import KeptObject, SnapshotRecord
from managed.domain.surveys import Survey, finding_of
from managed.domain.tickets import Ticket
from managed.domain.windows import Opening
from managed.domain.zammad import ticket_of
from managed.drivers.ssh.keys import new_key_pair
from managed.lab.helpdesk_stand_in import payload
from managed.logs import configure_logs
from managed.settings import Settings, settings
from managed.storage import events as event_log
from managed.storage.database import writing
from managed.storage.intake import Delivery
from managed.storage.leases import LeasedJobs
from managed.wiring import Installation, open_installation, prepare_installation, utc_now
from tests.support.surveys import nothing_to_do
from tests.support.waiting import wait_until

NODE = Node("7a6bb0a6-5f0d-4b0e-8f65-0b3f9d1c2a11", "local", "qemu:///system", "/srv/servers")


@dataclass
class ApiBench:
    """An installation, its API, and what an operator or a worker would have done to it."""

    installation: Installation
    app: FastAPI
    token: str
    sent: list[str] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def add_node(self, name: str = "local") -> Node:
        node_id = NODE.node_id if name == "local" else str(uuid.uuid4())
        node = Node(node_id, name, NODE.libvirt_uri, NODE.storage_dir)
        return self.installation.inventory.add_node(node, utc_now())

    def add_server(
        self,
        name: str = "shop",
        status: ServerStatus = ServerStatus.ACTIVE,
        origin: ServerOrigin = ServerOrigin.CREATED,
    ) -> Server:
        server_id = str(uuid.uuid4())
        created = origin is ServerOrigin.CREATED
        if created and not self.installation.inventory.nodes():
            self.add_node()
        spec = ServerSpec(
            server_id, name, 1, 512, 4, disk_serial_for(server_id), "52:54:00:00:00:01"
        )
        server = Server(
            server_id=server_id,
            name=name,
            origin=origin,
            status=status,
            address="127.0.0.1",
            ssh_port=22,
            ssh_user="root",
            host_key=new_key_pair().public_key,
            operating_system="debian-12",
            node_id=NODE.node_id if created else None,
            spec=spec if created else None,
        )
        with writing(self.installation.database) as connection:
            self.installation.inventory.add(connection, server, utc_now())
        return server

    def add_job(self, server: Server, kind: JobKind = JobKind.CHECK) -> Job:
        new = self.installation.new_job(server.server_id, kind, {}, "a test")
        return self.installation.queue.submit(new, utc_now())

    def end_job(self, job: Job, status: JobStatus = JobStatus.SUCCEEDED) -> None:
        """As a worker would: claim it, finish it."""
        now = utc_now()
        store = LeasedJobs(self.installation.database)
        claimed = store.claim(job.job_id, "a worker", now, timedelta(minutes=1))
        assert claimed is not None
        store.finish(claimed[0], status, now)

    def add_events(self, job: Job, *names: str) -> None:
        now = utc_now()
        new = [NewEvent(now, name, {"text": "line\u2028one"}) for name in names]
        with writing(self.installation.database) as connection:
            event_log.append(connection, job.job_id, new)

    def add_snapshot(
        self, server: Server, time: datetime, *, verified: bool, paths: tuple[str, ...] = ()
    ) -> str:
        job = self.add_job(server, JobKind.BACKUP)
        self.end_job(job)
        snapshot_id = uuid.uuid4().hex * 2
        kept = KeptObject("k", "0" * 64)
        record = SnapshotRecord(
            snapshot_id, server.server_id, job.job_id, time, 3, 4096, kept, kept, paths=paths
        )
        self.installation.catalogue.add(record)
        if verified:
            self.installation.catalogue.mark_verified(snapshot_id, {"ok": True}, utc_now())
        return snapshot_id

    def add_survey(self, server: Server, opening: Opening) -> Survey:
        """One that has found nothing to do."""
        document = {**nothing_to_do(opening.starts_at), "held": ["vim"]}
        finding = finding_of(document, False, opening.starts_at)
        survey = Survey(server.server_id, JobKind.PATCH, opening, opening.starts_at, finding)
        self.installation.surveys.record([survey])
        return survey

    def add_request(self, server: Server, sender: str = "anna@example.org") -> str:
        """As the helpdesk's webhook makes it; a ticket of its own each time."""
        intake, number = self.installation.intake, uuid.uuid4().int % 2**50 + 1
        ticket = ticket_of(
            payload(
                "please update now",
                sender=sender,
                ticket_id=number,
                article_id=number,
                server=server.name,
            )
        )
        assert isinstance(ticket, Ticket)
        asked = judged(ticket, intake.sender(sender), intake.named_server(server.name), "UTC")
        taken = intake.take_in(Delivery(str(uuid.uuid4()), "0" * 64), asked, utc_now())
        assert taken.request_id is not None
        return taken.request_id

    def open_session(self, server: Server) -> RescueSession:
        job = self.add_job(server, JobKind.RESCUE)
        session = self.installation.sessions.open(
            RescueSession(
                session_id=str(uuid.uuid4()),
                server_id=server.server_id,
                job_id=job.job_id,
                host_key="ssh-ed25519 AAAA",
                status_before=server.status,
                started_at=utc_now(),
                expires_at=datetime(2100, 1, 1, tzinfo=UTC),
            )
        )
        self.installation.inventory.set_status(server.server_id, ServerStatus.RESCUE, utc_now())
        self.end_job(job)
        return session


@pytest.fixture(autouse=True)
def logs_apart() -> Iterator[None]:
    """What the API logs goes where a process of its own would write it, not to what is printed."""
    configure_logs(Settings())
    yield
    structlog.reset_defaults()


@pytest.fixture
def bench(tmp_path: Path, migrated_file: Path) -> Iterator[ApiBench]:
    settings = Settings(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
    settings.state.mkdir()
    shutil.copy(migrated_file, settings.state / "managed.db")
    prepare_installation(settings)
    installation = open_installation(settings)
    sent: list[str] = []
    app = create_app(installation, sent.append)
    yield ApiBench(installation, app, settings.api_token.read_text().strip(), sent)
    installation.database.dispose()


@pytest.fixture
def api(bench: ApiBench) -> Iterator[TestClient]:
    """Sends the token with every request; a defect of ours is an answer, as in production."""
    with TestClient(bench.app, headers=bench.headers, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def live(bench: ApiBench) -> Iterator[ManagedClient]:
    """Our own client, and a real server on loopback."""
    server = uvicorn.Server(
        uvicorn.Config(bench.app, port=0, log_config=None, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, timeout=60, what="the API serves")
        port = server.servers[0].sockets[0].getsockname()[1]
        with ManagedClient(f"http://127.0.0.1:{port}", bench.token) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def at_command_line(
    bench: ApiBench, live: ManagedClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """`managed.cli.run` reaches the bench's service, with its token."""
    monkeypatch.setenv("MANAGED_STATE_DIR", str(bench.installation.settings.state))
    monkeypatch.setenv("MANAGED_LISTEN_PORT", str(live._http.base_url.port))
    settings.cache_clear()
    yield
    settings.cache_clear()
