"""Lists: pages that hold everything once, filters, and cursors that are refused when wrong."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.jobs import JobKind
from managed.domain.servers import ServerOrigin, ServerStatus
from managed.domain.windows import Opening
from managed.storage.database import writing
from managed.storage.windows import MissedWindow
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_access_matrix import World, world

__all__ = ["world"]

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def pages(api: TestClient, path: str, limit: int = 2, **query: str) -> list[list[dict[str, Any]]]:
    """Every page of the list, checked for its length."""
    found: list[list[dict[str, Any]]] = []
    cursor: str | None = None
    while True:
        given = {**query, "limit": limit, **({"cursor": cursor} if cursor else {})}
        answer = api.get(path, params=given)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= limit
        found.append(page["items"])
        cursor = page["next"]
        if cursor is None:
            return found


@pytest.fixture
def full(bench: ApiBench, api: TestClient) -> ApiBench:
    """Five of everything."""
    installation = bench.installation
    for number in range(5):
        server = bench.add_server(f"server-{number}")
        if number:
            bench.add_node(f"node-{number}")
        bench.add_snapshot(
            bench.installation.inventory.find()[0],
            datetime(2026, 11, 1, tzinfo=UTC),
            verified=number < 3,
        )
        bench.open_session(server)
        opening = Opening(utc_now() - timedelta(hours=2), utc_now() - timedelta(hours=1))
        missed = MissedWindow(server.server_id, JobKind.PATCH, opening, "it was off", utc_now())
        installation.windows.record_missed([missed])
        bench.add_survey(server, opening)
        with writing(installation.database) as connection:
            plan = Plan(str(uuid.uuid4()), f"plan-{number}", PlanKind.MANAGED)
            installation.customers.add_plan(connection, plan, utc_now())
            anna = Customer(str(uuid.uuid4()), f"Anna {number}", f"{number}@example.org")
            installation.customers.add(connection, anna, utc_now())
        window = {"owner": "plan", "owner_id": plan.name, "job_kind": "patch", "rule": "FREQ=DAILY"}
        assert api.post("/v1/windows", json=window).status_code == 201
        user = {"email": f"{number}@example.org", "name": "Kim", "role": "support"}
        assert api.post("/v1/users", json=user).status_code == 201
        token = {"user": "0@example.org", "name": f"laptop {number}"}
        assert api.post("/v1/tokens", json=token).status_code == 201
    return bench


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("/v1/servers", 5),
        ("/v1/jobs", 10),
        ("/v1/customers", 5),
        ("/v1/plans", 5),
        ("/v1/windows", 5),
        ("/v1/missed-windows", 5),
        ("/v1/surveys", 5),
        ("/v1/nodes", 5),
        ("/v1/servers/server-0/snapshots", 5),
        ("/v1/rescue-sessions", 5),
        ("/v1/users", 5),
        ("/v1/tokens?user=0@example.org", 5),
        ("/v1/audit", 15),
    ],
)
def test_pages_hold_everything_once(full: ApiBench, api: TestClient, path: str, count: int) -> None:
    address = httpx.URL(path)
    path, query = address.path, dict(address.params)
    (whole,) = pages(api, path, limit=200, **query)
    assert len(whole) == count
    assert [item for page in pages(api, path, **query) for item in page] == whole
    for cursor in ("*wrong*", "%00", "x" * 400):
        refused = api.get(f"{path}?cursor={cursor}")
        if path not in ("/v1/customers", "/v1/plans", "/v1/users") or len(cursor) > 300:
            assert refused.status_code == 422, (path, cursor)


def test_what_comes_meanwhile_moves_no_page(full: ApiBench, api: TestClient) -> None:
    first = api.get("/v1/servers", params={"limit": 2}).json()
    newest = full.add_server("a-new-one")
    rest = api.get("/v1/servers", params={"limit": 2, "cursor": first["next"]}).json()
    assert [one["name"] for one in rest["items"]] == ["server-2", "server-3"]
    jobs = api.get("/v1/jobs", params={"limit": 2}).json()
    full.add_job(newest, JobKind.PATCH)
    more = api.get("/v1/jobs", params={"limit": 200, "cursor": jobs["next"]}).json()
    assert len(more["items"]) == 8


def test_cursors_of_what_is_not_there_are_refused(full: ApiBench, api: TestClient) -> None:
    for path in ("/v1/jobs", "/v1/windows", "/v1/rescue-sessions"):
        assert api.get(path, params={"cursor": UNKNOWN}).status_code == 404
    (other,) = pages(api, "/v1/servers/server-0/snapshots", limit=200)
    path = "/v1/servers/server-1/snapshots"
    assert api.get(path, params={"cursor": other[0]["id"]}).status_code == 422
    token = api.get("/v1/tokens", params={"user": "0@example.org"}).json()["items"][0]
    others = {"user": "1@example.org", "cursor": token["id"]}
    assert api.get("/v1/tokens", params=others).status_code == 422
    forged = "WyIyMDI2LTExLTI0IiwgImEiLCAiYiJd"  # ["2026-11-24", "a", "b"]
    for path in ("/v1/missed-windows", "/v1/surveys"):
        assert api.get(path, params={"cursor": forged}).status_code == 422


@pytest.mark.parametrize("query", ["servers?plan=none", f"windows?cursor={UNKNOWN}"])
def test_filters_that_name_nothing_are_answers_of_the_document(
    bench: ApiBench, api: TestClient, query: str
) -> None:
    path = f"/v1/{query.partition('?')[0]}"
    documented = bench.app.openapi()["paths"][path]["get"]["responses"]
    assert str(api.get(f"/v1/{query}").status_code) in documented


def test_a_nul_in_an_address_is_refused(api: TestClient) -> None:
    for path in ("/v1/customers/a%00b", "/v1/jobs?requested_by=%00"):
        assert api.get(path).status_code == 422


def test_servers_by_what_they_are(bench: ApiBench, api: TestClient) -> None:
    bench.add_server("active")
    bench.add_server("new", ServerStatus.NEW, ServerOrigin.ENROLLED)
    plan = api.post("/v1/plans", json={"name": "plus"}).json()
    anna = api.post("/v1/customers", json={"name": "Anna", "email": "a@example.org"}).json()
    placed = {"customer": "Anna", "plan": "plus"}
    assert api.put("/v1/servers/new/placement", json=placed).status_code == 200

    def names(**query: str) -> list[str]:
        return [one["name"] for page in pages(api, "/v1/servers", **query) for one in page]

    assert names(status="new") == ["new"]
    assert names(node="local") == ["active"]
    assert names(plan="plus") == names(plan=plan["id"]) == ["new"]
    assert names(customer="Anna") == names(customer=anna["id"]) == ["new"]
    assert names(customer="Anna", status="active") == []
    for wrong in ({"customer": "Bea"}, {"plan": "none"}, {"node": "none"}):
        assert api.get("/v1/servers", params=wrong).status_code == 404
    assert api.get("/v1/servers", params={"status": "odd"}).status_code == 422


def test_jobs_by_when_and_by_whom(bench: ApiBench, api: TestClient) -> None:
    old = bench.add_job(bench.add_server("one"))
    middle = utc_now().isoformat()
    new = bench.add_job(bench.add_server("two"), JobKind.PATCH)

    def ids(**query: str) -> list[str]:
        return [one["id"] for page in pages(api, "/v1/jobs", **query) for one in page]

    assert ids(since=middle) == [new.job_id]
    assert ids(until=middle) == [old.job_id]
    assert ids(requested_by="a test") == [new.job_id, old.job_id]
    assert ids(requested_by="nobody") == []
    assert ids(kind="patch", status="queued", server_id="two") == [new.job_id]
    assert api.get("/v1/jobs", params={"since": "2026-11-24T00:00:00"}).status_code == 422


def test_other_filters(full: ApiBench, api: TestClient) -> None:
    def count(path: str, **query: str) -> int:
        return sum(map(len, pages(api, path, **query)))

    plan = api.get("/v1/plans/plan-1").json()
    snapshots = "/v1/servers/server-0/snapshots"
    assert count(snapshots, verified="true") == 3
    assert count(snapshots, verified="false") == 2
    assert count("/v1/windows", owner="plan") == 5
    assert count("/v1/windows", owner_id=plan["id"]) == 1
    assert count("/v1/windows", kind="backup") == count("/v1/windows", owner="server") == 0
    assert count("/v1/missed-windows", kind="patch", server_id="server-1") == 1
    assert count("/v1/missed-windows", kind="backup") == 0
    assert count("/v1/surveys", outcome="nothing-to-do", server_id="server-1") == 1
    assert count("/v1/surveys", outcome="work") == 0
    assert count("/v1/surveys", since=utc_now().isoformat()) == 0
    assert count("/v1/users", role="support") == 5
    assert count("/v1/users", role="admin") == 0
    assert count("/v1/plans", kind="unmanaged") == 0
    assert count("/v1/customers", email="3@example.org") == 1
    assert count("/v1/audit", action="add_user") == 5
    assert count("/v1/audit", actor="nobody") == 0
    assert count("/v1/audit", since=utc_now().isoformat()) == 0
    assert count("/v1/rescue-sessions", open="true", server_id="server-2") == 1
    assert count("/v1/rescue-sessions", open="false") == 0


def test_an_ended_session_stays_on_record(bench: ApiBench, api: TestClient) -> None:
    session = bench.open_session(bench.add_server())
    bench.installation.sessions.end(session.session_id, utc_now())
    path = f"/v1/rescue-sessions/{session.session_id}"
    assert api.get(path).json()["ended_at"] is not None
    assert api.get("/v1/rescue-sessions", params={"open": "true"}).json()["items"] == []
    assert api.get(f"/v1/rescue-sessions/{UNKNOWN}").status_code == 404


def test_customers_narrow_only_what_is_theirs(world: World, api: TestClient) -> None:
    headers = world.members["other"].headers
    opened: Callable[[str], Any] = lambda path: api.get(path, headers=headers)  # noqa: E731
    for query in ("customer=Anna", "plan=plus", "node=local"):
        assert opened(f"/v1/servers?{query}").status_code == 403
    session = world.bench.open_session(world.bench.add_server("nobodys"))
    assert opened("/v1/rescue-sessions").json()["items"] == []
    assert opened(f"/v1/rescue-sessions/{session.session_id}").status_code == 404
