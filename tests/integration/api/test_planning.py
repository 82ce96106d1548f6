"""Customers, plans, windows and the pause over the API."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from managed.domain.errors import Paused
from managed.domain.jobs import JobKind
from managed.domain.servers import ServerStatus
from managed.domain.windows import Opening
from managed.storage.windows import MissedWindow
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_refusals import problem

CUSTOMER = {"name": "Anna Shop Ltd", "email": "anna@example.org"}
PLAN = {"name": "managed-plus", "kind": "managed", "only_security": True}
WINDOW = {
    "owner": "plan",
    "owner_id": "managed-plus",
    "job_kind": "patch",
    "rule": "FREQ=DAILY;BYHOUR=2",
    "zone": "Europe/Berlin",
    "minutes": 180,
}


def made(api: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_customers_are_added_listed_by_name_and_found_by_both(api: TestClient) -> None:
    anna = made(api, "/v1/customers", CUSTOMER)
    made(api, "/v1/customers", {"name": "Bea", "email": "bea@example.org"})
    first = api.get("/v1/customers", params={"limit": 1}).json()
    assert [one["name"] for one in first["items"]] == ["Anna Shop Ltd"]
    second = api.get("/v1/customers", params={"cursor": first["next"]}).json()
    assert [one["name"] for one in second["items"]] == ["Bea"]
    for reference in (anna["id"], anna["name"]):
        assert api.get(f"/v1/customers/{reference}").json() == anna
    problem(api.post("/v1/customers", json=CUSTOMER), 409, "already-exists")
    problem(api.get("/v1/customers/nobody"), 404, "not-found")


def test_a_server_is_placed_with_a_customer_on_a_plan_and_taken_back(
    bench: ApiBench, api: TestClient
) -> None:
    bench.add_server()
    anna, plan = made(api, "/v1/customers", CUSTOMER), made(api, "/v1/plans", PLAN)
    placed = api.put(
        "/v1/servers/shop/placement", json={"customer": anna["name"], "plan": plan["id"]}
    )
    assert placed.status_code == 200
    shown = api.get("/v1/servers/shop").json()
    assert (shown["customer_id"], shown["plan_id"]) == (anna["id"], plan["id"])
    problem(
        api.put("/v1/servers/shop/placement", json={"customer": "Bea", "plan": None}),
        404,
        "not-found",
    )
    api.put("/v1/servers/shop/placement", json={"customer": None, "plan": None})
    assert api.get("/v1/servers/shop").json()["plan_id"] is None


def test_a_server_gets_no_other_owner_while_a_job_works_on_it(
    bench: ApiBench, api: TestClient
) -> None:
    anna = made(api, "/v1/customers", CUSTOMER)
    job = bench.add_job(bench.add_server())
    refusal = problem(
        api.put("/v1/servers/shop/placement", json={"customer": anna["id"], "plan": None}),
        409,
        "server-busy",
    )
    assert refusal["data"]["job_id"] == job.job_id


def test_an_unmanaged_plan_covers_the_machine_and_not_the_system(
    bench: ApiBench, api: TestClient
) -> None:
    bench.add_server()
    made(api, "/v1/plans", {"name": "bare", "kind": "unmanaged"})
    api.put("/v1/servers/shop/placement", json={"customer": None, "plan": "bare"})
    refusal = problem(
        api.post("/v1/servers/shop/jobs", json={"kind": "patch"}), 409, "not-supported"
    )
    assert "unmanaged" in refusal["detail"]
    power = api.post("/v1/servers/shop/jobs", json={"kind": "power", "action": "reset"})
    assert power.status_code == 202


def test_a_window_says_when_it_opens_next(bench: ApiBench, api: TestClient) -> None:
    plan = made(api, "/v1/plans", PLAN)
    window = made(api, "/v1/windows", WINDOW)
    assert window["owner_id"] == plan["id"]
    starts = datetime.fromisoformat(window["next_opening"]["starts_at"])
    assert utc_now() < starts <= utc_now() + timedelta(days=1)
    assert api.get(f"/v1/windows/{window['id']}").json() == window
    assert api.get("/v1/windows").json()["items"] == [window]
    problem(api.post("/v1/windows", json=WINDOW), 409, "already-exists")
    assert api.delete(f"/v1/windows/{window['id']}").json() == window
    problem(api.delete(f"/v1/windows/{window['id']}"), 404, "not-found")
    assert api.get("/v1/windows").json()["items"] == []


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"owner_id": "nothing"}, 404, "no plan"),
        ({"owner": "server", "owner_id": "nothing"}, 404, "no server"),
        ({"owner": "customer", "owner_id": "nothing"}, 404, "no customer"),
        ({"rule": "FREQ=HOURLY"}, 422, "FREQ=DAILY"),
        ({"rule": "FREQ=DAILY;INTERVAL=0"}, 422, "INTERVAL"),
        ({"rule": "FREQ=DAILY;FREQ=HOURLY"}, 422, "FREQ is there twice"),
        ({"rule": "FREQ=DAILY;BYSETPOS=366"}, 422, "BYSETPOS chooses"),
        ({"rule": "FREQ=DAILY;UNTIL=20200101"}, 422, "no start within the next nine years"),
        ({"zone": "localtime"}, 422, "no time zone"),
        ({"zone": "Berlin"}, 422, "no time zone"),
    ],
)
def test_a_senseless_window_is_refused(
    api: TestClient, change: dict[str, Any], status: int, word: str
) -> None:
    made(api, "/v1/plans", PLAN)
    answer = api.post("/v1/windows", json=WINDOW | change)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["detail"]
    assert api.get("/v1/windows").json()["items"] == []


def test_a_rule_counts_from_today_in_its_zone(bench: ApiBench, api: TestClient) -> None:
    """At ten in the evening of 1 December in UTC it is the next day in Auckland."""
    made(api, "/v1/plans", PLAN)
    bench.app.state.services = replace(
        bench.app.state.services, clock=lambda: datetime(2026, 12, 1, 22, tzinfo=UTC)
    )
    auckland = WINDOW | {"zone": "Pacific/Auckland"}
    over = api.post("/v1/windows", json=auckland | {"rule": "FREQ=DAILY;BYHOUR=2;COUNT=1"})
    assert "it counts from 2026-12-02" in problem(over, 422, "invalid-input")["detail"]
    tonight = made(api, "/v1/windows", auckland | {"rule": "FREQ=DAILY;BYHOUR=23;COUNT=1"})
    assert tonight["starts_on"] == "2026-12-02"
    assert tonight["next_opening"]["starts_at"] == "2026-12-02T10:00:00Z"


def test_a_window_that_counts_for_no_server_says_why(bench: ApiBench, api: TestClient) -> None:
    made(api, "/v1/plans", {"name": "bare", "kind": "unmanaged"})
    anna = made(api, "/v1/customers", CUSTOMER)
    bench.add_server("shop")
    bench.add_server("new", status=ServerStatus.NEW)
    placed = {"customer": anna["name"], "plan": "bare"}
    api.put("/v1/servers/new/placement", json=placed)

    def limitation(owner: str, owner_id: str) -> str | None:
        window = made(api, "/v1/windows", WINDOW | {"owner": owner, "owner_id": owner_id})
        assert api.get(f"/v1/windows/{window['id']}").json() == window
        assert (window["next_opening"] is None) is (window["limitation"] is not None)
        api.delete(f"/v1/windows/{window['id']}")
        found: str | None = window["limitation"]
        return found

    no_server = "the customer has no server that is enrolled and on a managed plan"
    assert limitation("plan", "bare") == "the plan is unmanaged"
    assert limitation("server", "shop") == "the server is on no plan"
    assert limitation("server", "new") == "the server's plan is unmanaged"
    assert limitation("customer", anna["id"]) == no_server
    api.patch("/v1/plans/bare", json={"kind": "managed"})
    assert limitation("plan", "bare") is None
    assert limitation("server", "new") == "the server is not enrolled yet"
    assert limitation("customer", anna["id"]) == no_server
    api.put("/v1/servers/shop/placement", json=placed)
    assert limitation("server", "shop") is None
    assert limitation("customer", anna["id"]) is None


def test_missed_windows_are_told_with_their_reason(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    starts = datetime(2026, 4, 1, 2, tzinfo=UTC)
    missed = MissedWindow(
        server.server_id,
        JobKind.PATCH,
        Opening(starts, starts + timedelta(hours=2)),
        "busy",
        utc_now(),
    )
    bench.installation.windows.record_missed([missed])
    (shown,) = api.get("/v1/missed-windows", params={"server_id": "shop"}).json()["items"]
    assert (shown["starts_at"], shown["reason"]) == ("2026-04-01T02:00:00Z", "busy")
    later = api.get("/v1/missed-windows", params={"since": "2099-01-01T00:00:00Z"})
    assert later.json()["items"] == []


def test_what_surveys_have_found_is_told_with_its_evidence(
    bench: ApiBench, api: TestClient
) -> None:
    server = bench.add_server()
    starts = utc_now().replace(microsecond=0)
    bench.add_survey(server, Opening(starts, starts + timedelta(hours=2)))
    (shown,) = api.get("/v1/surveys", params={"server_id": "shop"}).json()["items"]
    assert (shown["server_id"], shown["job_kind"]) == (server.server_id, "patch")
    assert shown["starts_at"] == f"{starts:%Y-%m-%dT%H:%M:%SZ}"
    assert (shown["outcome"], shown["detail"]) == (
        "nothing-to-do",
        "everything is up to date; on hold: vim",
    )
    assert shown["found"]["held"] == ["vim"]
    assert shown["found"]["lists_fetched_at"] == starts.isoformat()
    assert api.get("/v1/surveys", params={"outcome": "odd"}).status_code == 422


URGENT = {"rescue", "unrescue", "restore", "restore-files", "power", "delete"}


@pytest.mark.parametrize("kind", list(JobKind))
def test_in_a_pause_only_urgent_jobs_are_taken(
    bench: ApiBench, api: TestClient, kind: JobKind
) -> None:
    server = bench.add_server()
    made(api, "/v1/pause", {"reason": "a bad kernel"})
    new = bench.installation.new_job(server.server_id, kind, {}, "kim")
    taken = nullcontext() if kind in URGENT else pytest.raises(Paused, match="a bad kernel")
    with taken:
        assert bench.installation.queue.submit(new, utc_now()).kind is kind


def test_a_pause_is_begun_once_is_shown_refuses_and_ends(bench: ApiBench, api: TestClient) -> None:
    bench.add_server()
    assert api.get("/v1/pause").json() == {"pause": None}
    pause = made(api, "/v1/pause", {"reason": "a bad kernel"})
    assert api.get("/v1/pause").json() == {"pause": pause}
    problem(api.post("/v1/pause", json={"reason": "again"}), 409, "conflict")

    refusal = problem(api.post("/v1/servers/shop/jobs", json={"kind": "backup"}), 409, "paused")
    assert "a bad kernel" in refusal["detail"]
    assert api.post("/v1/servers/shop/jobs", json={"kind": "rescue"}).status_code == 202

    for _ in range(2):
        assert api.delete("/v1/pause").json() == {"pause": None}
    assert api.get("/v1/pause").json() == {"pause": None}
