"""The helpdesk's webhook: what is signed is taken once, what is not is not looked at."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text

from managed.domain.errors import InvalidInput
from managed.domain.requests import Decision
from managed.lab.helpdesk_stand_in import SECRET, headers, payload, signature
from managed.settings import Settings
from managed.storage.database import reading, writing
from managed.wiring import Installation, open_installation
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_refusals import problem
from tests.integration.tickets.conftest import Desk
from tests.support.waiting import wait_until

RESTORE = "Please restore /var/www/shop as of yesterday 18:00."


def known(desk: Desk) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = desk.api.get("/v1/requests").json()["items"]
    return found


def test_a_signed_ticket_becomes_an_open_request_that_says_why(desk: Desk) -> None:
    request = desk.ask(RESTORE, title="Shop is empty", server="shop")
    shop = desk.installation.inventory.by_name("shop")
    assert shop is not None
    assert request["status"] == "open"
    assert request["server_id"] == shop.server_id
    assert request["customer_id"] == desk.customers["Anna Ltd"].customer_id
    assert request["proposal"] == {
        "kind": "restore-files",
        "paths": ["/var/www/shop"],
        "as_of": "2026-11-23T17:00:00Z",
    }
    assert 'something back ("restore")' in request["why"]
    assert "2026-11-23 18:00 Europe/Berlin" in request["why"]
    assert "server attribute says shop" in request["why"]
    assert (request["sender"], request["ticket_number"]) == ("anna@example.org", "10081")
    assert request["text"] == RESTORE
    assert desk.installation.queue.find() == [], "text runs nothing by itself"
    assert desk.sent == []


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "sha1=",
        "sha1=" + "0" * 40,
        signature(b"another body"),
        signature(json.dumps(payload(RESTORE)).encode(), "another secret"),
        signature(json.dumps(payload(RESTORE)).encode()).removeprefix("sha1="),
        "sha256=" + "0" * 64,
    ],
)
def test_a_wrong_signature_is_refused_and_nothing_is_told(desk: Desk, wrong: str) -> None:
    body = json.dumps(payload(RESTORE)).encode()
    answer = desk.send_raw(body, **{"X-Hub-Signature": wrong})
    problem(answer, 401, "signature-refused")
    assert SECRET not in answer.text
    assert signature(body) not in answer.text
    assert known(desk) == []


def test_the_bearer_token_is_no_signature(desk: Desk) -> None:
    body = json.dumps(payload(RESTORE)).encode()
    signed = headers(body)
    del signed["X-Hub-Signature"]
    problem(
        desk.api.post("/v1/webhooks/zammad", content=body, headers=signed),
        401,
        "signature-refused",
    )


def test_one_changed_byte_is_refused(desk: Desk) -> None:
    body = json.dumps(payload(RESTORE)).encode()
    changed = body.replace(b"/var/www/shop", b"/var/www/blog")
    problem(desk.send_raw(changed, **headers(body)), 401, "signature-refused")


def test_the_same_delivery_twice_is_one_request(desk: Desk) -> None:
    body = json.dumps(payload(RESTORE)).encode()
    once = {"X-Zammad-Delivery": "delivery-1"}
    first, second = desk.send_raw(body, **once), desk.send_raw(body, **once)
    assert first.json()["outcome"] == "request"
    assert second.json() == first.json()
    assert len(known(desk)) == 1


def test_a_replay_under_another_delivery_id_changes_nothing(desk: Desk) -> None:
    """That header is not signed: whoever has seen a delivery can send it again under any id."""
    body = json.dumps(payload(RESTORE)).encode()
    first = desk.send_raw(body).json()
    assert desk.refuse(first["request_id"], "no").status_code == 200
    again = desk.send_raw(body).json()
    assert again == {"outcome": "known", "request_id": first["request_id"]}
    assert len(known(desk)) == 1


def test_one_delivery_with_two_bodies_is_refused(desk: Desk) -> None:
    once = {"X-Zammad-Delivery": "delivery-1"}
    assert desk.send_raw(json.dumps(payload(RESTORE)).encode(), **once).status_code == 200
    other = json.dumps(payload("something else", article_id=105)).encode()
    problem(desk.send_raw(other, **once), 409, "idempotency-key-reused")


def test_of_many_deliveries_of_one_article_at_once_one_becomes_a_request(desk: Desk) -> None:
    together = 6
    at_once = threading.Barrier(together)
    body = json.dumps(payload(RESTORE)).encode()

    def deliver(number: int) -> str:
        at_once.wait(60)
        same = {"X-Zammad-Delivery": f"delivery-{number % 3}"}
        answer = desk.send_raw(body, **same)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["request_id"])

    with ThreadPoolExecutor(together) as threads:
        ids = set(threads.map(deliver, range(together)))
    assert ids == {request["id"] for request in known(desk)}
    assert len(ids) == 1


def test_a_second_article_is_a_note_while_the_request_is_open(desk: Desk) -> None:
    first = desk.ask(RESTORE)
    later = desk.deliver("It is urgent, please restore /etc too").json()
    assert later == {"outcome": "note", "request_id": first["id"]}
    shown = desk.request(first["id"])
    assert [note["text"] for note in shown["notes"]] == ["It is urgent, please restore /etc too"]
    assert shown["proposal"] == first["proposal"], "what staff looks at does not change"
    assert len(known(desk)) == 1


def test_after_a_decision_a_new_article_is_a_new_request(desk: Desk) -> None:
    first = desk.ask(RESTORE)
    desk.refuse(first["id"], "Not covered.")
    second = desk.ask("Then please update now")
    assert second["id"] != first["id"]
    assert second["proposal"]["kind"] == "patch"


def test_an_oversized_body_is_refused_while_it_arrives(desk: Desk) -> None:
    body = json.dumps(payload("x" * 256 * 1024)).encode()
    problem(desk.send_raw(body), 413, "body-too-large")
    arrived = 0

    def pieces() -> Iterator[bytes]:
        nonlocal arrived
        for _ in range(64):
            arrived += 1
            yield b" " * 2**16

    answer = TestClient(desk.app, raise_server_exceptions=False).post(
        "/v1/webhooks/zammad", content=pieces(), headers=headers(b"")
    )
    problem(answer, 413, "body-too-large")
    assert known(desk) == []


def test_html_is_cleaned_and_what_is_hidden_in_it_is_not_read(desk: Desk) -> None:
    html = """<div>Please restore <b>/var/www/shop</b><br>as of yesterday&nbsp;18:00 &lt;3</div>
    <script>restore('/etc/shadow')</script><style>p { color: red }</style>
    <p style="display:none">restore /etc/passwd</p><!-- restore /root -->
    <img src=x onerror="alert(1)"><a href="javascript:alert(1)">thank you</a>
    <blockquote type="cite">You wrote: restore /home</blockquote>"""
    request = desk.ask(html, is_html=True)
    assert request["proposal"]["paths"] == ["/var/www/shop"]
    assert "as of yesterday 18:00 <3" in request["text"]
    assert "thank you" in request["text"]
    for hidden in ("script", "shadow", "passwd", "/root", "/home", "alert", "color", "<b>"):
        assert hidden not in request["text"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"by": "Agent"}, "our own answer"),
        ({"by": "System"}, "an automatic note"),
        ({"internal": True}, "staff among themselves"),
    ],
)
def test_what_no_customer_wrote_asks_nothing(desk: Desk, options: dict[str, Any], why: str) -> None:
    assert desk.deliver(RESTORE, **options).json() == {"outcome": "unread", "request_id": None}
    assert known(desk) == [], why


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"ticket": {"id": 81}, "article": null}',
        b'{"ticket": [], "article": {}}',
        b"[" * 100_000,
        json.dumps(payload("x") | {"ticket": {"id": 81}}).encode(),
        json.dumps(payload("x", ticket_id=0)).encode(),
        json.dumps(payload("x", article_id=2**60)).encode(),
        json.dumps(payload("x", written_at="yesterday")).encode(),
        json.dumps(payload("x", written_at="0001-01-01T00:00:00+14:00")).encode(),
        json.dumps(payload("x", written_at="2026-11-24T09:30:00")).encode(),
        json.dumps(payload("x", sender="anna")).encode(),
        json.dumps(payload("x", sender="an\u0000na@example.org")).encode(),
        json.dumps(payload("x", sender="an\ud800na@example.org")).encode(),
        json.dumps(payload("x")).replace('"text/plain", "created_at"', '"x", "y"').encode(),
    ],
)
def test_a_signed_body_that_is_no_ticket_is_refused(desk: Desk, body: bytes) -> None:
    problem(desk.send_raw(body), 422, "invalid-input")
    assert known(desk) == []


@pytest.mark.parametrize("delivery", ["", " ", "x" * 121, "a\tb"])
def test_a_delivery_without_an_id_is_refused(desk: Desk, delivery: str) -> None:
    body = json.dumps(payload(RESTORE)).encode()
    problem(desk.send_raw(body, **{"X-Zammad-Delivery": delivery}), 422, "invalid-input")
    assert known(desk) == []


def test_odd_text_is_stored_as_what_can_be_shown(desk: Desk) -> None:
    odd = "restore /var/\u202ewww\u0000\ud800 \u200bnow"
    request = desk.ask(odd, title="help\u202e\u0007")
    assert request["text"] == "restore /var/www\ufffd\ufffd now"
    assert request["title"] == "help\ufffd"
    assert request["proposal"]["kind"] == "none", "a path is not cut at what it cannot hold"


# ---------------------------------------------------------------- who may ask


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sender": "mallory@example.com", "server": "shop"}, "address of no customer"),
        ({"sender": "mallory@example.com"}, "address of no customer"),
        ({"sender": "bea@example.org", "server": "shop"}, "not the address of Anna Ltd"),
        ({"sender": "bea@example.org", "server": "nothing"}, "no server 'nothing'"),
    ],
)
def test_a_stranger_is_refused_and_told_the_same_whatever_there_is(
    desk: Desk, options: dict[str, Any], reason: str
) -> None:
    request = desk.ask(RESTORE, **options)
    assert request["status"] == "refused"
    assert reason in request["decision"]["reason"]
    assert request["customer_id"] is None, "no customer sees it"
    text = request["reply"]["text"].lower()
    assert request["reply"]["state"] == "waiting"
    assert "could not match it to a server of yours" in text
    # A random id may spell a name of hexadecimal digits.
    rest = text.replace("nothing was done", "").replace(request["id"], "")
    for told in ("shop", "anna", "bea", "nothing", "/var/www", "customer"):
        assert told not in rest
    problem(desk.approve(request["id"]), 409, "conflict")
    assert desk.installation.queue.find() == []


def test_a_stranger_is_answered_once_per_ticket(desk: Desk) -> None:
    """Else our answer and that of a machine would follow on each other without end."""
    first = desk.ask(RESTORE, sender="mallory@example.com")
    second = desk.ask(RESTORE, sender="mallory@example.com")
    assert first["reply"] is not None
    assert second["status"] == "refused"
    assert second["reply"] is None


def test_a_stranger_who_asks_for_nothing_is_left_to_people(desk: Desk) -> None:
    request = desk.ask("What does a server cost?", sender="new@example.com")
    assert (request["status"], request["reply"]) == ("refused", None)


def test_an_agent_may_write_for_a_customer(desk: Desk) -> None:
    request = desk.ask(RESTORE, kind="phone", origin_by="anna@example.org")
    assert (request["sender"], request["status"]) == ("anna@example.org", "open")


def test_a_customer_with_one_server_need_not_name_it(desk: Desk) -> None:
    request = desk.ask("My server does not boot", sender="Anna@Example.ORG")
    assert request["proposal"]["kind"] == "rescue"
    assert "shop is the sender's only server" in request["why"]


def test_a_server_that_is_not_clear_is_left_to_a_person(desk: Desk) -> None:
    desk.give(desk.add_server("mail"), desk.customers["Anna Ltd"])
    unclear = desk.ask("My server does not boot")
    assert unclear["server_id"] is None
    assert "Which server is not known: the ticket names no server" in unclear["why"]
    problem(desk.approve(unclear["id"]), 422, "invalid-input")
    foreign = desk.approve(unclear["id"], server="blog")
    assert "Bea Ltd" in problem(foreign, 409, "conflict")["detail"]
    assert desk.approve(unclear["id"], server="mail").status_code == 202


def test_a_server_named_in_the_text_is_meant_if_it_is_the_senders(desk: Desk) -> None:
    desk.give(desk.add_server("mail"), desk.customers["Anna Ltd"])
    request = desk.ask("mail does not boot since blog was moved")
    assert "The text names the server mail" in request["why"]


# ---------------------------------------------------------------- settings


def test_without_a_secret_no_webhook_is_taken(bench: ApiBench) -> None:
    body = json.dumps(payload(RESTORE)).encode()
    with TestClient(bench.app) as stranger:
        answer = stranger.post("/v1/webhooks/zammad", content=body, headers=headers(body))
    refusal = problem(answer, 503, "missing-requirement")
    assert "MANAGED_ZAMMAD_WEBHOOK_SECRET" in refusal["hint"]


def test_secrets_come_from_files_and_bad_ones_stop_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installation(**options: Any) -> Installation:
        return open_installation(Settings(state_dir=tmp_path, runtime_dir=tmp_path, **options))

    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv("MANAGED_ZAMMAD_WEBHOOK_SECRET_FILE", str(file))
    found = installation().webhook_secret
    assert found is not None
    assert found.reveal() == SECRET
    with pytest.raises(InvalidInput, match="too short"):
        _ = installation(zammad_webhook_secret=SecretStr("short")).webhook_secret
    monkeypatch.setenv("MANAGED_ZAMMAD_WEBHOOK_SECRET_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidInput, match="cannot be read"):
        installation()
    monkeypatch.delenv("MANAGED_ZAMMAD_WEBHOOK_SECRET_FILE")
    with pytest.raises(InvalidInput, match="no time zone"):
        _ = installation(tickets_zone="Berlin").tickets_zone


def test_an_article_that_comes_while_staff_decides_is_not_lost(desk: Desk) -> None:
    """It is no note on a request that nobody looks at any more."""
    if desk.installation.database.dialect.name != "postgresql":
        pytest.skip("SQLite lets one transaction after the other write")
    request = desk.ask("please update now")
    requests = desk.installation.requests
    with ThreadPoolExecutor(1) as helpdesk:
        with writing(desk.installation.database) as connection:
            present = requests.locked(connection, request["id"])
            coming = helpdesk.submit(desk.deliver, "Please restore /var/www instead")
            wait_until(lambda: someone_waits(desk), timeout=30, what="the article waits")
            decision = Decision("kim", desk.installation.clock(), reason="not today")
            requests.refuse(connection, present, decision, None)
        told = coming.result(30).json()
    assert told["outcome"] == "request"
    assert told["request_id"] != request["id"]


def someone_waits(desk: Desk) -> bool:
    """Does a transaction of this database wait for another one's lock?"""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with reading(desk.installation.database) as connection:
        return bool(connection.execute(text(query)).scalar_one())
