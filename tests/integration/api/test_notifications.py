"""Notification targets and what they are told over the API and the command line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from api.app import create_app
from managed.cli import REFUSED, run
from managed.domain.jobs import JobStatus
from managed.domain.notifications import MOST_TARGETS
from managed.domain.secrets import Secret, SecretPurpose
from managed.settings import Settings
from managed.storage.database import reading
from managed.storage.tables import idempotency_keys, sealed_secrets
from managed.wiring import open_installation
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_command_line import managed
from tests.integration.api.test_refusals import problem
from tests.support.mail_server import Mailbox, mail_server
from tests.support.webhook_receiver import StandInReceiver, serving
from workers.notices import Notices

__all__ = ["managed"]

TARGETS = "/v1/notification-targets"
WEBHOOK = {"kind": "webhook", "address": "https://hooks.example.org/managed"}
MAIL = {"kind": "email", "address": "ops@example.org"}


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def bench(bench: ApiBench, mailbox: Mailbox) -> Iterator[ApiBench]:
    """The installation with a mail server, and webhooks on loopback."""
    bench.installation.database.dispose()
    with mail_server(mailbox) as mail:
        settings = bench.installation.settings.model_copy(
            update={
                "smtp_host": mail.host,
                "smtp_port": mail.port,
                "smtp_tls": "none",
                "smtp_from": mail.sender,
                "webhooks_to_private_addresses": True,
            }
        )
        installation = open_installation(settings)
        app = create_app(installation, bench.sent.append)
        yield replace(bench, installation=installation, app=app)
        installation.database.dispose()


def add(api: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(TARGETS, json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def fail_a_job(bench: ApiBench, name: str = "shop") -> str:
    server = bench.add_server(name)
    bench.end_job(bench.add_job(server), JobStatus.FAILED)
    return server.server_id


def tell(bench: ApiBench) -> None:
    installation = bench.installation
    Notices(installation, start=lambda work: work()).tell(installation.clock())


def test_a_target_is_added_shown_listed_and_removed(api: TestClient) -> None:
    made = add(api, {**MAIL, "occasions": ["window-missed"]})
    assert made.pop("secret") is None
    assert (made["occasions"], made["customer_id"]) == (["window-missed"], None)
    assert api.get(f"{TARGETS}/{made['id']}").json() == made
    assert api.get(TARGETS).json() == {"items": [made], "next": None}
    problem(api.post(TARGETS, json=MAIL), 409, "already-exists")
    assert api.delete(f"{TARGETS}/{made['id']}").json() == made
    problem(api.get(f"{TARGETS}/{made['id']}"), 404, "not-found")
    problem(api.delete(f"{TARGETS}/{made['id']}"), 404, "not-found")


def test_targets_and_what_they_are_told_come_in_pages_and_by_customer(
    bench: ApiBench, api: TestClient
) -> None:
    api.post("/v1/customers", json={"name": "Anna", "email": "anna@example.org"})
    add(api, MAIL)
    annas = add(api, {**MAIL, "customer": "Anna"})
    add(api, WEBHOOK)
    fail_a_job(bench)
    for path, count in ((TARGETS, 3), ("/v1/notifications", 2)):
        seen, cursor = [], None
        while True:
            page = api.get(path, params={"limit": 1, **({"cursor": cursor} if cursor else {})})
            seen += [item["id"] for item in page.json()["items"]]
            cursor = page.json()["next"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == count
    of_anna = api.get(TARGETS, params={"customer": "Anna"}).json()["items"]
    assert [target["id"] for target in of_anna] == [annas["id"]]
    assert api.get("/v1/notifications", params={"customer": "Anna"}).json()["items"] == []
    problem(api.get(TARGETS, params={"customer": "nobody"}), 404, "not-found")
    unknown = "00000000-0000-4000-8000-000000000000"
    problem(api.get("/v1/notifications", params={"cursor": unknown}), 404, "not-found")


def test_a_webhooks_secret_is_shown_once_and_is_nowhere_readable(
    bench: ApiBench, api: TestClient
) -> None:
    made = add(api, WEBHOOK)
    secret = made["secret"]
    kept = bench.installation.vault.secret(made["id"], SecretPurpose.WEBHOOK_KEY)
    assert kept == Secret(secret)
    for shown in (api.get(TARGETS), api.get(f"{TARGETS}/{made['id']}")):
        assert secret not in shown.text
    with reading(bench.installation.database) as connection:
        assert connection.execute(select(idempotency_keys)).all() == []
    answer = api.delete(f"{TARGETS}/{made['id']}")
    assert secret not in answer.text
    with reading(bench.installation.database) as connection:
        owners = select(sealed_secrets.c.owner).where(sealed_secrets.c.owner == made["id"])
        assert connection.execute(owners).all() == []


@pytest.mark.parametrize(
    "body",
    [
        {**WEBHOOK, "address": "http://hooks.example.org/"},
        {**WEBHOOK, "address": "https://me:secret@hooks.example.org/"},
        {**MAIL, "address": "ops@example.org\nBcc: all@example.org"},
        {**MAIL, "occasions": []},
        {**MAIL, "occasions": ["job-succeeded"]},
        {**MAIL, "kind": "pigeon"},
        {**MAIL, "secret": "mine"},
    ],
)
def test_what_cannot_be_told_is_refused(api: TestClient, body: dict[str, Any]) -> None:
    problem(api.post(TARGETS, json=body), 422, "invalid-input")


def test_an_unknown_customer_is_said(api: TestClient) -> None:
    problem(api.post(TARGETS, json={**MAIL, "customer": "nobody"}), 404, "not-found")


def test_a_test_message_is_sent_and_its_answer_told_as_it_is(
    api: TestClient, mailbox: Mailbox
) -> None:
    made = add(api, MAIL)
    tried = api.post(f"{TARGETS}/{made['id']}/test").json()
    assert tried == {"delivered": True, "detail": "the other side has taken it", "hint": ""}
    assert mailbox.mails[0]["Subject"] == "managed: a test message"
    mailbox.answer = "550 no such user"
    tried = api.post(f"{TARGETS}/{made['id']}/test").json()
    assert not tried["delivered"]
    assert "550 no such user" in tried["detail"]
    assert api.get("/v1/notifications").json()["items"] == [], "a test is no incident"


def test_only_a_few_tests_are_made_at_once(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add(api, MAIL)
    one_at_once = threading.BoundedSemaphore(1)
    monkeypatch.setattr("api.routes.notifications._TRIALS", one_at_once)
    with one_at_once:
        refused = api.post(f"{TARGETS}/{made['id']}/test")
    problem(refused, 503, "unavailable")
    assert refused.headers["Retry-After"] == "15"
    for _ in range(2):
        assert api.post(f"{TARGETS}/{made['id']}/test").json()["delivered"]


def test_nobody_adds_targets_without_end(api: TestClient) -> None:
    for number in range(MOST_TARGETS):
        add(api, {**MAIL, "address": f"ops{number}@example.org"})
    problem(api.post(TARGETS, json=MAIL), 409, "conflict")
    api.post("/v1/customers", json={"name": "Anna", "email": "anna@example.org"})
    add(api, {**MAIL, "customer": "Anna"})


def test_what_was_told_can_be_followed(bench: ApiBench, api: TestClient, mailbox: Mailbox) -> None:
    add(api, MAIL)
    server_id = fail_a_job(bench)
    (waiting,) = api.get("/v1/notifications", params={"status": "waiting"}).json()["items"]
    assert (waiting["server_id"], waiting["delivery_id"]) == (server_id, None)
    tell(bench)
    assert api.get("/v1/notifications", params={"status": "waiting"}).json()["items"] == []
    (sent,) = api.get("/v1/notifications", params={"status": "sent"}).json()["items"]
    assert (sent["id"], sent["attempts"], sent["last_error"]) == (waiting["id"], 1, "")
    assert sent["delivery_id"] in mailbox.mails[0]["Message-ID"]
    problem(api.get("/v1/notifications", params={"status": "lost"}), 422, "invalid-input")


def test_without_a_mail_server_no_mail_is_promised(bench: ApiBench) -> None:
    settings = Settings(
        state_dir=bench.installation.settings.state_dir,
        runtime_dir=bench.installation.settings.runtime_dir,
    )
    installation = open_installation(settings)
    with TestClient(create_app(installation, bench.sent.append), headers=bench.headers) as api:
        refused = problem(api.post(TARGETS, json=MAIL), 409, "not-supported")
        assert "MANAGED_SMTP_HOST" in refused["hint"]
        assert api.post(TARGETS, json=WEBHOOK).status_code == 201
    installation.database.dispose()


def test_the_command_line_adds_tries_lists_and_removes(
    bench: ApiBench, managed: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = StandInReceiver(Secret(""))
    with serving(receiver) as url:
        webhook = managed("notifications", "add-webhook", url, "--occasion", "job-failed")
        assert webhook["occasions"] == ["job-failed"]
        receiver.secret = Secret(webhook["secret"])
        assert managed("notifications", "test", webhook["id"])["delivered"]
        assert [call.document["type"] for call in receiver.calls] == ["test"]
    mail = managed("notifications", "add-email", "ops@example.org")
    listed = managed("notifications", "targets")["items"]
    assert {target["id"] for target in listed} == {webhook["id"], mail["id"]}
    managed("notifications", "remove", webhook["id"])
    fail_a_job(bench)
    tell(bench)
    capsys.readouterr()
    (told,) = managed("notifications", "list", "--status", "sent")["items"]
    assert told["target_id"] == mail["id"]


def test_the_command_line_says_the_secret_once_and_a_failed_test_by_its_status(
    managed: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["notifications", "add-webhook", "https://nobody.invalid/hook"]) == 0
    said = capsys.readouterr().out
    assert "Its secret, shown this once: " in said
    target_id = said.split()[-1]
    assert run(["notifications", "test", target_id]) == REFUSED
    assert "Not delivered: the webhook's host nobody.invalid" in capsys.readouterr().out
    assert run(["notifications", "targets"]) == 0
    assert target_id in capsys.readouterr().out
    assert run(["notifications", "list"]) == 0
    assert "There is nothing to tell." in capsys.readouterr().out
