"""The same job for many servers: each gets it, or the refusal that it would have got alone."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from fastapi.testclient import TestClient

from managed.cli import run
from managed.client import ManagedClient
from managed.domain.access import Role
from managed.domain.customers import Plan, PlanKind
from managed.domain.jobs import JobKind
from managed.domain.servers import ServerOrigin, ServerStatus
from managed.storage.database import writing
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_access_matrix import World, world

__all__ = ["world"]

PATH = "/v1/bulk/jobs"
CHECK = {"kind": "check"}


def ask(api: TestClient, servers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = api.post(PATH, json={"job": CHECK, "servers": servers, **fields})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def refusals(document: dict[str, Any]) -> dict[str, str | None]:
    return {
        item["server"]: item["refusal"]["code"] if item["refusal"] else None
        for item in document["items"]
    }


@pytest.fixture
def fleet(bench: ApiBench) -> dict[str, str | None]:
    """Servers with what a check of each gets."""
    bench.add_server("well")
    busy = bench.add_server("busy")
    bench.add_job(busy, JobKind.PATCH)
    bench.add_server("new", ServerStatus.NEW, ServerOrigin.ENROLLED)
    bench.open_session(bench.add_server("rescued"))
    unmanaged = bench.add_server("unmanaged")
    plan = Plan(str(uuid.uuid4()), "bare", PlanKind.UNMANAGED)
    with writing(bench.installation.database) as connection:
        bench.installation.customers.add_plan(connection, plan, utc_now())
        bench.installation.customers.place(connection, unmanaged, None, plan.plan_id, utc_now())
    return {
        "busy": "server-busy",
        "new": "conflict",
        "rescued": "conflict",
        "unmanaged": "not-supported",
        "well": None,
    }


def everything(bench: ApiBench) -> list[tuple[Any, ...]]:
    tables = ("jobs", "events", "servers", "idempotency_keys", "audit_log")
    with bench.installation.database.connect() as connection:
        return [
            tuple(row)
            for table in tables
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")  # noqa: S608
        ]


def test_each_gets_its_job_or_the_refusal_of_a_single_request(
    bench: ApiBench, api: TestClient, fleet: dict[str, str | None]
) -> None:
    before = everything(bench)
    dry = ask(api, {"all": True}, dry_run=True)
    assert refusals(dry) == fleet
    assert (dry["submitted"], dry["refused"]) == (1, 4)
    assert everything(bench) == before
    assert bench.sent == []

    done = ask(api, {"all": True})
    assert refusals(done) == fleet
    (job_id,) = [item["job_id"] for item in done["items"] if item["job_id"]]
    assert bench.sent == [job_id]
    alone = {
        name: api.post(f"/v1/servers/{name}/jobs", json=CHECK).json().get("code")
        for name in fleet
        if name != "well"
    }
    assert alone == {name: code for name, code in fleet.items() if name != "well"}


def test_the_audit_log_has_each_job_and_the_whole(
    api: TestClient, fleet: dict[str, str | None]
) -> None:
    well = api.get("/v1/servers/well").json()["id"]
    ask(api, {"all": True})
    whole, one, *_ = api.get("/v1/audit").json()["items"]
    assert (whole["action"], whole["data"]["submitted"], whole["data"]["refused"]) == (
        "submit_jobs",
        1,
        4,
    )
    assert (one["action"], one["subject"]) == ("submit_job", well)


def test_a_key_covers_the_whole_also_when_it_was_cut_off(
    bench: ApiBench, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        bench.add_server(name)
    body = {"job": CHECK, "servers": {"all": True}}
    headers = {"Idempotency-Key": "night"}
    queue = type(bench.installation.queue)
    submit, seen = queue.submit_within, []

    def dies_at_the_third(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) == 3:
            raise RuntimeError("the machine goes down")
        return submit(*arguments)

    monkeypatch.setattr(queue, "submit_within", dies_at_the_third)
    assert api.post(PATH, json=body, headers=headers).status_code == 500
    assert len(bench.sent) == 2
    first = set(bench.sent)
    again = api.post(PATH, json=body, headers=headers).json()
    jobs = {item["job_id"] for item in again["items"]}
    assert (again["submitted"], len(jobs)) == (3, 3)
    assert first < jobs
    assert len(bench.sent) == 3
    replayed = api.post(PATH, json=body, headers=headers)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert replayed.json() == again
    other = api.post(PATH, json={**body, "job": {"kind": "backup"}}, headers=headers)
    assert other.json()["code"] == "idempotency-key-reused"


def test_pages_and_names(bench: ApiBench, api: TestClient) -> None:
    for name in ("a", "b", "c"):
        bench.add_server(name)
    first = ask(api, {"status": "active"}, limit=2)
    assert (list(refusals(first)), first["next"]) == (["a", "b"], "b")
    rest = ask(api, {"status": "active"}, limit=2, cursor="b")
    assert (list(refusals(rest)), rest["next"]) == (["c"], None)
    named = ask(api, {"names": ["nowhere", "c", "c"]})
    assert refusals(named) == {"nowhere": "not-found", "c": "server-busy"}
    both = {"job": CHECK, "servers": {"names": ["a"]}, "cursor": "a"}
    assert api.post(PATH, json=both).status_code == 422


@pytest.mark.parametrize(
    "servers", [{}, {"names": ["a"], "plan": "p"}, {"all": True, "status": "new"}, {"names": []}]
)
def test_who_is_meant_has_to_be_said_in_one_way(api: TestClient, servers: dict[str, Any]) -> None:
    answer = api.post(PATH, json={"job": CHECK, "servers": servers})
    assert answer.status_code == 422


@pytest.mark.parametrize("kind", ["restore", "rescue", "delete"])
def test_what_loses_a_server_is_asked_for_one_by_one(api: TestClient, kind: str) -> None:
    answer = api.post(PATH, json={"job": {"kind": kind}, "servers": {"all": True}})
    assert answer.status_code == 422


def test_customers_reach_their_own_servers_and_may_no_more_than_alone(
    world: World, api: TestClient
) -> None:
    headers = world.members["other"].headers
    power = {"kind": "power", "action": "reset"}

    def bulk(job: dict[str, str], servers: dict[str, Any]) -> Any:
        body = {"job": job, "servers": servers, "dry_run": True}
        return api.post(PATH, json=body, headers=headers)

    assert list(refusals(bulk(power, {"all": True}).json())) == ["beas"]
    assert refusals(bulk(power, {"names": ["annas"]}).json()) == {"annas": "not-found"}
    assert bulk({"kind": "patch"}, {"all": True}).status_code == 403
    for choice in ({"customer": "Anna"}, {"plan": "any"}, {"node": "local"}):
        assert bulk(power, choice).status_code == 403
    assert world.members["other"].user.role is Role.CUSTOMER


def test_the_command_line_goes_on_until_no_server_is_left(
    live: ManagedClient,
    bench: ApiBench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("managed.cli.bulk.client", lambda: live)
    for name in ("a", "b"):
        bench.add_server(name)
    words = ["jobs", "submit-many", "--status", "active", "patch", "-p", "only_security=true"]
    assert run([*words, "--dry-run"]) == 0
    assert "2 would be submitted" in capsys.readouterr().out
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["submitted"] == 2
    found = bench.installation.queue.find()
    assert [job.parameters["only_security"] for job in found] == [True, True]
    assert run(words) == 1
    assert "2 refused" in capsys.readouterr().out
    assert run(["jobs", "submit-many", "patch"]) == 1
