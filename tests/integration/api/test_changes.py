"""Changing and removing what is on record: what is allowed, what is in the way."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from managed.cli import run
from managed.client import ManagedClient
from managed.domain.jobs import JobKind
from managed.domain.public_keys import fingerprint
from managed.domain.servers import ServerOrigin
from managed.drivers.ssh.keys import new_key_pair
from tests.integration.api.conftest import ApiBench


def code(answer: httpx.Response) -> str:
    return str(answer.json()["code"])


@pytest.fixture
def anna(api: TestClient) -> dict[str, Any]:
    body = {"name": "Anna", "email": "anna@example.org"}
    made: dict[str, Any] = api.post("/v1/customers", json=body).json()
    return made


@pytest.fixture
def plus(api: TestClient) -> dict[str, Any]:
    made: dict[str, Any] = api.post("/v1/plans", json={"name": "plus"}).json()
    return made


def test_customers_and_plans_change(
    api: TestClient, anna: dict[str, Any], plus: dict[str, Any]
) -> None:
    changed = api.patch("/v1/customers/Anna", json={"email": "office@example.org"})
    assert changed.json() == {**anna, "email": "office@example.org"}
    assert api.get(f"/v1/customers/{anna['id']}").json() == changed.json()
    changed = api.patch("/v1/plans/plus", json={"name": "more", "only_security": True})
    assert api.get("/v1/plans/more").json() == changed.json()
    assert changed.json()["only_security"] is True
    entry = api.get("/v1/audit").json()["items"][0]
    assert (entry["action"], entry["subject"]) == ("change_plan", plus["id"])
    assert entry["data"]["changed"] == {"name": "more", "only_security": True}


def test_names_stay_unique_and_a_change_changes_something(
    api: TestClient, anna: dict[str, Any], plus: dict[str, Any]
) -> None:
    api.post("/v1/customers", json={"name": "Bea", "email": "bea@example.org"})
    api.post("/v1/plans", json={"name": "bare"})
    assert code(api.patch("/v1/customers/Bea", json={"name": "Anna"})) == "already-exists"
    assert code(api.patch("/v1/plans/bare", json={"name": "plus"})) == "already-exists"
    assert api.patch("/v1/plans/bare", json={"name": "Not a name"}).status_code == 422
    for path in ("/v1/customers/Bea", "/v1/plans/bare"):
        assert api.patch(path, json={}).status_code == 422
        assert api.patch(path, json={"nmae": "x"}).status_code == 422
    assert api.patch("/v1/plans/none", json={"name": "x"}).status_code == 404


def test_only_what_nothing_refers_to_is_removed(
    bench: ApiBench, api: TestClient, anna: dict[str, Any], plus: dict[str, Any]
) -> None:
    bench.add_server("shop")
    api.put("/v1/servers/shop/placement", json={"customer": "Anna", "plan": "plus"})
    window = {"owner": "plan", "owner_id": "plus", "job_kind": "patch", "rule": "FREQ=DAILY"}
    window_id = api.post("/v1/windows", json=window).json()["id"]
    refused = api.delete("/v1/customers/Anna")
    assert refused.status_code == 409
    assert refused.json()["data"] == {"servers": 1, "windows": 0, "users": 0}
    assert api.delete("/v1/plans/plus").json()["data"] == {"servers": 1, "windows": 1}
    api.put("/v1/servers/shop/placement", json={"customer": None, "plan": None})
    api.delete(f"/v1/windows/{window_id}")
    assert api.delete("/v1/customers/Anna").json() == anna
    assert api.delete("/v1/plans/plus").json() == plus
    assert api.delete("/v1/plans/plus").status_code == 404


def test_a_changed_window_counts_from_its_next_start(api: TestClient, plus: dict[str, Any]) -> None:
    window = {"owner": "plan", "owner_id": "plus", "job_kind": "patch", "rule": "FREQ=DAILY"}
    made = api.post("/v1/windows", json=window).json()
    path = f"/v1/windows/{made['id']}"
    changed = api.patch(path, json={"rule": "FREQ=WEEKLY;BYDAY=SU;BYHOUR=3", "minutes": 240})
    assert changed.status_code == 200
    assert api.get(path).json()["minutes"] == 240
    assert changed.json()["next_opening"]["starts_at"].endswith("T03:00:00Z")
    for wrong in ({"rule": "FREQ=SECONDLY"}, {"zone": "Mars/Base"}, {"minutes": 1}, {"owner": "x"}):
        assert api.patch(path, json=wrong).status_code == 422


def test_an_enrolled_server_moves_and_is_renamed(bench: ApiBench, api: TestClient) -> None:
    bench.add_server("old", origin=ServerOrigin.ENROLLED)
    body = {"name": "new", "address": "192.0.2.7", "ssh_port": 2222}
    changed = api.patch("/v1/servers/old", json=body).json()
    assert {name: changed[name] for name in body} == body
    found = api.get("/v1/servers/new").json()
    assert {name: found[name] for name in changed} == changed
    bench.add_server("other")
    assert code(api.patch("/v1/servers/other", json={"name": "new"})) == "already-exists"
    assert code(api.patch("/v1/servers/other", json={"ssh_port": 23})) == "not-supported"
    assert api.patch("/v1/servers/other", json={"name": "renamed"}).json()["vcpus"] == 1
    assert api.patch("/v1/servers/new", json={"address": "-oProxyCommand=x"}).status_code == 422


def test_a_host_key_is_pinned_anew_only_for_the_known_one(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    key = new_key_pair().public_key
    alone = api.patch("/v1/servers/shop", json={"host_key": key})
    assert alone.status_code == 422
    wrong = {"host_key": key, "replaced_fingerprint": fingerprint(key)}
    assert api.patch("/v1/servers/shop", json=wrong).status_code == 409
    right = {"host_key": key, "replaced_fingerprint": fingerprint(server.host_key)}
    assert api.patch("/v1/servers/shop", json=right).json()["host_key"] == key
    assert api.patch("/v1/servers/shop", json=right).status_code == 409
    entry = api.get("/v1/audit").json()["items"][0]
    assert entry["data"]["fingerprint"] == fingerprint(key)


def test_a_server_that_a_job_works_on_is_left_alone(bench: ApiBench, api: TestClient) -> None:
    job = bench.add_job(bench.add_server(), JobKind.PATCH)
    refused = api.patch("/v1/servers/shop", json={"name": "new"})
    assert code(refused) == "server-busy"
    assert refused.json()["data"]["job_id"] == job.job_id


def test_the_command_line_changes_and_removes(
    live: ManagedClient,
    bench: ApiBench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in ("changes", "servers", "planning", "jobs", "rescues"):
        monkeypatch.setattr(f"managed.cli.{module}.client", lambda: live)
    server = bench.add_server("old", origin=ServerOrigin.ENROLLED)
    key = new_key_pair().public_key
    for words in (
        ["servers", "change", "old", "--name", "new", "--address", "192.0.2.7", "--port", "23"],
        ["servers", "pin-host-key", "new", key, "--yes"],
        ["customers", "add", "Anna", "anna@example.org"],
        ["customers", "change", "Anna", "--email", "office@example.org"],
        ["plans", "add", "plus"],
        ["plans", "change", "plus", "--only-security"],
        ["windows", "add", "plan", "plus", "patch", "FREQ=DAILY"],
    ):
        assert run(words) == 0, words
    changed = live.get(f"/v1/servers/{server.server_id}")
    assert [changed["name"], changed["ssh_port"], changed["host_key"]] == ["new", 23, key]
    assert live.get("/v1/customers/Anna")["email"] == "office@example.org"
    assert live.get("/v1/plans/plus")["only_security"] is True
    (window,) = live.items("/v1/windows")
    assert run(["windows", "change", window["id"], "--minutes", "60"]) == 0
    assert live.get(f"/v1/windows/{window['id']}")["minutes"] == 60
    assert run(["plans", "remove", "plus", "--yes"]) == 1
    assert run(["customers", "remove", "Anna", "--yes"]) == 0
    capsys.readouterr()
    bench.open_session(bench.add_server("broken"))
    assert run(["rescues", "list"]) == 0
    assert "no server" not in capsys.readouterr().out.lower()
    assert run(["servers", "list", "--status", "rescue"]) == 0
    assert "broken" in capsys.readouterr().out
    assert run(["jobs", "list", "--since", "2099-01-01T00:00:00Z"]) == 0
    assert "no such jobs" in capsys.readouterr().out
