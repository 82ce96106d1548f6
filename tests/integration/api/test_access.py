"""Users, tokens and the audit log over the API and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from managed.cli import REFUSED, run
from managed.client import ManagedClient
from managed.settings import settings
from managed.storage.database import writing
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_refusals import problem

KIM = {"email": "Kim@example.org", "name": "Kim", "role": "support"}


def made(api: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bearer(token: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {token['token']}"}


def entries(api: TestClient) -> list[tuple[str, str, str]]:
    found = api.get("/v1/audit").json()["items"]
    return [(entry["actor"], entry["action"], entry["reason"]) for entry in reversed(found)]


def test_a_user_works_with_a_token_until_it_is_revoked(api: TestClient) -> None:
    kim = made(api, "/v1/users", KIM)
    assert kim["email"] == "kim@example.org"
    token = made(api, "/v1/tokens", {"user": "kim@example.org", "name": "laptop"})
    me = api.get("/v1/me", headers=bearer(token)).json()
    assert (me["name"], me["role"]) == ("kim@example.org", "support")
    assert "users" not in me["permissions"]
    (listed,) = api.get("/v1/tokens", headers=bearer(token)).json()["items"]
    assert listed["id"] == token["id"]
    assert "token" not in listed
    assert api.delete(f"/v1/tokens/{token['id']}", headers=bearer(token)).status_code == 200
    refused = problem(api.get("/v1/me", headers=bearer(token)), 401, "unauthorized")
    assert "revoked" in refused["detail"]


def test_a_disabled_user_can_do_nothing_until_enabled_again(api: TestClient) -> None:
    made(api, "/v1/users", KIM)
    token = made(api, "/v1/tokens", {"user": "kim@example.org", "name": "laptop"})
    api.post("/v1/users/kim@example.org/disable")
    problem(api.get("/v1/me", headers=bearer(token)), 401, "unauthorized")
    api.post("/v1/users/kim@example.org/enable")
    assert api.get("/v1/me", headers=bearer(token)).status_code == 200


def test_a_limited_token_lets_nobody_in_as_more_than_itself(api: TestClient) -> None:
    for name in ("joe", "lee"):
        made(api, "/v1/users", {"email": f"{name}@example.org", "name": name, "role": "admin"})
    body = {"user": "joe@example.org", "name": "x", "scopes": ["users", "tokens"], "days": 1}
    narrow = made(api, "/v1/tokens", body)
    of_lee = {"user": "lee@example.org", "name": "for me", "days": 300}
    token = api.post("/v1/tokens", json=of_lee, headers=bearer(narrow)).json()
    assert token["scopes"] == ["tokens", "users"]
    assert token["expires_at"] == narrow["expires_at"]
    new = {"email": "new@example.org", "name": "N", "role": "admin"}
    problem(api.post("/v1/users", json=new, headers=bearer(narrow)), 403, "forbidden")
    invitation = api.post("/v1/users/lee@example.org/invitation", headers=bearer(narrow))
    problem(invitation, 403, "forbidden")


def test_customers_have_a_customer_and_staff_has_none(api: TestClient) -> None:
    problem(api.post("/v1/users", json={**KIM, "role": "customer"}), 422, "invalid-input")
    made(api, "/v1/customers", {"name": "Anna", "email": "anna@example.org"})
    problem(api.post("/v1/users", json={**KIM, "customer": "Anna"}), 422, "invalid-input")
    anna = made(api, "/v1/users", {**KIM, "role": "customer", "customer": "Anna"})
    assert anna["customer_id"]
    problem(api.post("/v1/users", json=KIM), 409, "already-exists")


def test_nobody_else_ends_a_users_token(api: TestClient) -> None:
    made(api, "/v1/users", KIM)
    made(api, "/v1/users", {**KIM, "email": "lee@example.org"})
    kims = made(api, "/v1/tokens", {"user": "kim@example.org", "name": "laptop"})
    lees = made(api, "/v1/tokens", {"user": "lee@example.org", "name": "laptop"})
    problem(api.delete(f"/v1/tokens/{kims['id']}", headers=bearer(lees)), 404, "not-found")
    body = {"user": "kim@example.org", "name": "for me"}
    problem(api.post("/v1/tokens", json=body, headers=bearer(lees)), 403, "forbidden")
    query = {"user": "kim@example.org"}
    problem(api.get("/v1/tokens", params=query, headers=bearer(lees)), 403, "forbidden")


def test_a_token_says_who_asks_whatever_its_holder_says(bench: ApiBench, api: TestClient) -> None:
    bench.add_server()
    made(api, "/v1/users", KIM)
    token = made(api, "/v1/tokens", {"user": "kim@example.org", "name": "laptop"})
    headers = {**bearer(token), "X-Requested-By": "the boss", "X-Reason": "ticket 4711"}
    job = api.post("/v1/servers/shop/jobs", json={"kind": "check"}, headers=headers).json()
    assert job["requested_by"] == "kim@example.org"
    assert entries(api)[-1] == ("kim@example.org", "submit_job", "ticket 4711")


def test_what_changes_something_is_entered_once_and_what_fails_is_not(
    bench: ApiBench, api: TestClient
) -> None:
    server = bench.add_server()
    headers = {"Idempotency-Key": "once", "X-Requested-By": "joe"}
    for _ in range(2):
        api.post("/v1/servers/shop/jobs", json={"kind": "check"}, headers=headers)
    problem(api.post("/v1/servers/shop/jobs", json={"kind": "check"}), 409, "server-busy")
    api.post("/v1/pause", json={"reason": "a bad kernel"})
    api.delete("/v1/pause")
    assert entries(api) == [
        ("joe (api-token)", "submit_job", ""),
        ("api-token", "begin_pause", ""),
        ("api-token", "end_pause", ""),
    ]
    (entry,) = api.get("/v1/audit", params={"subject": server.server_id}).json()["items"]
    assert entry["data"]["kind"] == "check"
    problem(
        api.post("/v1/pause", json={"reason": "x"}, headers={"X-Reason": "\t"}),
        422,
        "invalid-input",
    )


def test_no_token_is_in_the_log_or_kept_as_an_answer(bench: ApiBench, api: TestClient) -> None:
    made(api, "/v1/users", KIM)
    token = made(api, "/v1/tokens", {"user": "kim@example.org", "name": "laptop"})
    database = bench.installation.settings.state / "managed.db"
    files = [path.read_bytes() for path in database.parent.glob("managed.db*")]
    assert not any(token["token"].encode() in content for content in files)


# ---------------------------------------------------------------- the command line


@pytest.fixture
def managed(
    bench: ApiBench, live: ManagedClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., int]]:
    monkeypatch.setenv("MANAGED_STATE_DIR", str(bench.installation.settings.state))
    monkeypatch.setenv("MANAGED_API_URL", str(live._http.base_url))
    settings.cache_clear()
    yield lambda *arguments: run(arguments)
    settings.cache_clear()


def test_a_user_has_a_token_made_and_works_with_it_from_anywhere(
    bench: ApiBench,
    managed: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench.add_server()
    assert managed("users", "add", "kim@example.org", "Kim", "support") == 0
    capsys.readouterr()
    assert managed("tokens", "make", "kim@example.org", "laptop") == 0
    token = capsys.readouterr().out.strip()
    monkeypatch.setenv("MANAGED_TOKEN", token)
    monkeypatch.setenv("MANAGED_STATE_DIR", "/nonexistent")
    settings.cache_clear()
    assert managed("--reason", "ticket 4711", "jobs", "submit", "shop", "check") == 0
    assert managed("users", "list") == REFUSED
    assert "role support" in capsys.readouterr().err
    assert managed("audit", "list", "--server", "shop") == 0
    said = capsys.readouterr().out
    assert "kim@example.org" in said
    assert "ticket 4711" in said


def test_the_log_is_verified_and_a_change_behind_our_back_is_found(
    bench: ApiBench, managed: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two", "three"):
        managed("customers", "add", name, f"{name}@example.org")
    capsys.readouterr()
    assert managed("audit", "verify") == 0
    noted = capsys.readouterr().out.split()[-1]
    assert noted.startswith("3:")
    managed("customers", "add", "four", "four@example.org")
    assert managed("audit", "verify", "--expect", noted) == 0
    assert managed("audit", "verify", "--expect", f"3:{'0' * 64}") == REFUSED
    assert "not in the log" in capsys.readouterr().err
    assert managed("audit", "verify", "--expect", "3") == REFUSED
    with writing(bench.installation.database) as connection:
        connection.execute(text("DROP TRIGGER audit_log_no_update"))
        connection.execute(text("UPDATE audit_log SET actor = 'nobody' WHERE number = 2"))
    assert managed("audit", "verify") == REFUSED
    assert "entry 2 was changed" in capsys.readouterr().err


def test_an_invitation_is_an_address_that_opens_in_a_browser(
    bench: ApiBench, managed: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert managed("users", "add", "kim@example.org", "Kim", "support") == 0
    capsys.readouterr()
    assert managed("users", "invite", "kim@example.org") == 0
    address = capsys.readouterr().out.strip()
    assert "kim@example.org" in httpx.get(address, trust_env=False).text
