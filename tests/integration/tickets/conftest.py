"""A support desk: the API on a real installation, on both databases, with the helpdesk's secret."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from managed.domain.customers import Customer
from managed.domain.jobs import Job, JobStatus, StepResult, StepStatus
from managed.domain.servers import Server
from managed.lab.helpdesk_stand_in import SECRET, headers, payload
from managed.logs import configure_logs
from managed.settings import Settings
from managed.storage.database import writing
from managed.storage.leases import LeasedJobs
from managed.wiring import open_installation, prepare_installation, utc_now
from tests.integration.api.conftest import ApiBench, bench

__all__ = ["bench"]


@dataclass
class Desk(ApiBench):
    """Anna has the server shop; Bea has blog."""

    articles: int = 100
    customers: dict[str, Customer] = field(default_factory=dict)

    @property
    def api(self) -> TestClient:
        return TestClient(self.app, headers=self.headers, raise_server_exceptions=False)

    def add_customer(self, name: str, email: str) -> Customer:
        customer = Customer(str(uuid.uuid4()), name, email)
        with writing(self.installation.database) as connection:
            self.installation.customers.add(connection, customer, utc_now())
        self.customers[name] = customer
        return customer

    def give(self, server: Server, customer: Customer | None) -> None:
        with writing(self.installation.database) as connection:
            self.installation.customers.place(
                connection, server, customer.customer_id if customer else None, None, utc_now()
            )

    def deliver(self, text: str, **options: Any) -> httpx.Response:
        """A new article of ticket 81, from Anna unless said otherwise, in a delivery of its own."""
        self.articles += 1
        options.setdefault("article_id", self.articles)
        return self.send_raw(json.dumps(payload(text, **options)).encode())

    def send_raw(self, body: bytes, **header: str) -> httpx.Response:
        stranger = TestClient(self.app, raise_server_exceptions=False)
        return stranger.post(
            "/v1/webhooks/zammad", content=body, headers={**headers(body), **header}
        )

    def ask(self, text: str, **options: Any) -> dict[str, Any]:
        """The request that an article has become."""
        answer = self.deliver(text, **options)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outcome"] == "request"
        return self.request(answer.json()["request_id"])

    def request(self, request_id: str) -> dict[str, Any]:
        answer = self.api.get(f"/v1/requests/{request_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def approve(self, request_id: str, **body: Any) -> httpx.Response:
        return self.api.post(f"/v1/requests/{request_id}/approve", json=body)

    def refuse(self, request_id: str, reason: str, **body: Any) -> httpx.Response:
        return self.api.post(f"/v1/requests/{request_id}/refuse", json={"reason": reason, **body})

    def end(self, job_id: str, status: JobStatus, **results: dict[str, Any]) -> Job:
        """As a worker would: claim it, record its steps, finish it."""
        store, now = LeasedJobs(self.installation.database), utc_now()
        claimed = store.claim(job_id, "a worker", now, timedelta(minutes=1))
        assert claimed is not None
        job = claimed[0]
        for name, result in results.items():
            error = result.pop("error", None)
            kind = StepStatus.FAILED if error else StepStatus.DONE
            job = store.start_step(job, name, now)
            job = store.record_step(job, StepResult(name, kind, 1, now, now, result, error))
        if status is JobStatus.FAILED:
            job = store.begin_undo(job, status, job.steps[-1].error or {}, None, now)
        store.finish(job, status, now)
        return self.installation.queue.job(job_id)


@pytest.fixture(autouse=True)
def logs_apart() -> Iterator[None]:
    """What the API logs goes where a process of its own would write it, not to what is printed."""
    configure_logs(Settings())
    yield
    structlog.reset_defaults()


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """More settings of the installation, for a module to give."""
    return {}


@pytest.fixture
def desk(tmp_path: Path, database_url: str, settings_changes: dict[str, Any]) -> Iterator[Desk]:
    given: dict[str, Any] = {
        "state_dir": tmp_path / "state",
        "runtime_dir": tmp_path / "run",
        "database_url": database_url,
        "zammad_webhook_secret": SecretStr(SECRET),
        "tickets_zone": "Europe/Berlin",
    }
    settings = Settings(**(given | settings_changes))
    prepare_installation(settings)
    installation = open_installation(settings)
    sent: list[str] = []
    app = create_app(installation, sent.append)
    desk = Desk(installation, app, settings.api_token.read_text().strip(), sent)
    desk.give(desk.add_server("shop"), desk.add_customer("Anna Ltd", "anna@example.org"))
    desk.give(desk.add_server("blog"), desk.add_customer("Bea Ltd", "bea@example.org"))
    yield desk
    installation.database.dispose()
