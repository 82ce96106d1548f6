"""Asking for work and reading of it."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from managed.domain.jobs import JobKind
from managed.domain.secrets import SecretPurpose
from managed.domain.servers import Node, ServerOrigin, ServerStatus
from managed.drivers.local_ports import FIRST
from managed.drivers.ssh.keys import new_key_pair, public_key_of
from managed.lab.libvirtd import SESSION_URI, PrivateLibvirtd
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_refusals import problem
from tests.support.local_sshd import local_sshd


def test_server_and_its_create_job_appear_together(bench: ApiBench, api: TestClient) -> None:
    bench.add_node()
    customer = new_key_pair().public_key
    answer = api.post("/v1/servers", json={"name": "shop", "authorized_keys": [f"{customer} anna"]})
    assert answer.status_code == 202
    server, job = answer.json()["server"], answer.json()["job"]
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert [forward["guest_port"] for forward in server["forwards"]] == [22, 80]
    assert server["ssh_port"] == server["forwards"][0]["host_port"]
    assert (job["kind"], job["status"]) == ("create", "queued")
    assert job["parameters"] == {"authorized_keys": [customer]}
    assert bench.sent == [job["id"]]
    spec = bench.installation.inventory.get(server["id"]).spec
    assert spec is not None
    assert spec.mac.startswith("52:54:00:")
    assert len(spec.disk_serial) == 20


def test_servers_made_at_once_get_ports_of_their_own(bench: ApiBench, api: TestClient) -> None:
    bench.add_node()

    def create(number: int) -> httpx.Response:
        return api.post("/v1/servers", json={"name": f"shop-{number}"})

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(create, range(20)))
    assert [answer.status_code for answer in answers] == [202] * 20
    ports = [f["host_port"] for a in answers for f in a.json()["server"]["forwards"]]
    assert len(set(ports)) == 40


@pytest.mark.integration
def test_a_node_that_answers_is_registered_once(
    bench: ApiBench, api: TestClient, tmp_path: Path
) -> None:
    daemon = PrivateLibvirtd(tmp_path / "lab") if os.geteuid() == 0 else None
    uri = SESSION_URI if daemon is None else daemon.start()
    body = {"name": "second", "libvirt_uri": uri, "storage_dir": str(tmp_path)}
    try:
        answer = api.post("/v1/nodes", json=body)
        assert answer.status_code == 201, answer.text
        problem(api.post("/v1/nodes", json=body), 409, "already-exists")
    finally:
        if daemon is not None:
            daemon.stop()
    assert [node.name for node in bench.installation.inventory.nodes()] == ["second"]


def test_ports_of_a_node_elsewhere_are_not_looked_for_here(
    bench: ApiBench, api: TestClient
) -> None:
    elsewhere = Node(str(uuid.uuid4()), "far", "qemu+ssh://root@192.0.2.7/system", "/srv/servers")
    here = bench.add_node()
    bench.installation.inventory.add_node(elsewhere, utc_now())
    first = next(bench.installation.host_ports(here))
    with socket.create_server(("127.0.0.1", first)):
        ports = [
            api.post("/v1/servers", json={"name": f"on-{name}", "node_id": name}).json()["server"][
                "ssh_port"
            ]
            for name in ("local", "far")
        ]
    assert ports[0] > first
    assert ports[1] == FIRST


@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        ({"kind": "patch"}, {"only_security": False, "reboot": "when-needed", "urls": []}),
        (
            {"kind": "harden", "extra_ports": ["8443/tcp", "53/udp"]},
            {"extra_ports": ["8443/tcp", "53/udp"], "firewall": True},
        ),
        ({"kind": "backup"}, {}),
        ({"kind": "check", "urls": ["http://127.0.0.1/"]}, {"urls": ["http://127.0.0.1/"]}),
        ({"kind": "rescue"}, {"hours": 4}),
        ({"kind": "power", "action": "reset"}, {"action": "reset"}),
    ],
)
def test_job_is_stored_then_sent(
    bench: ApiBench, api: TestClient, body: dict[str, Any], parameters: dict[str, Any]
) -> None:
    server = bench.add_server()
    answer = api.post(
        f"/v1/servers/{server.server_id}/jobs", json=body, headers={"X-Requested-By": "anna"}
    )
    assert answer.status_code == 202, answer.text
    job = bench.installation.queue.job(answer.json()["id"])
    assert job.kind == body["kind"]
    assert job.parameters == parameters
    assert job.requested_by == "anna (api-token)"
    assert bench.sent == [job.job_id]


def test_restore_as_of_another_zone(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    chosen = bench.add_snapshot(server, noon, verified=True)
    body = {"kind": "restore", "as_of": "2026-11-23T13:30:00+01:00", "snapshot_id": chosen}
    job = api.post("/v1/servers/shop/jobs", json=body).json()
    as_of = datetime.fromisoformat(job["parameters"]["as_of"])
    assert as_of == datetime(2026, 11, 23, 12, 30, tzinfo=UTC)


def test_delete_answers_its_job(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    answer = api.delete("/v1/servers/shop")
    assert answer.status_code == 202
    assert answer.json()["kind"] == "delete"
    assert answer.json()["server_id"] == server.server_id


def test_enrolment_keeps_our_key_and_pins_theirs(bench: ApiBench, api: TestClient) -> None:
    host_key = new_key_pair().public_key
    body = {"name": "old", "address": "192.0.2.10", "host_key": f"{host_key} root@old"}
    answer = api.post("/v1/servers/enrol", json={**body, "operating_system": "debian-12"})
    assert answer.status_code == 201
    server_id = answer.json()["server"]["id"]
    server = bench.installation.inventory.get(server_id)
    assert (server.host_key, server.status) == (host_key, ServerStatus.NEW)
    assert server.origin is ServerOrigin.ENROLLED
    key = bench.installation.vault.secret(server_id, SecretPurpose.LOGIN_KEY)
    assert public_key_of(key) == answer.json()["public_key"]
    assert "PRIVATE" not in answer.text
    refused = api.post("/v1/servers/old/jobs", json={"kind": "patch"})
    assert "enrol" in problem(refused, 409, "conflict")["hint"]
    assert api.post("/v1/servers/old/jobs", json={"kind": "enrol"}).status_code == 202


@pytest.mark.integration
def test_host_key_that_a_real_server_shows(api: TestClient, tmp_path: Path) -> None:
    with local_sshd(tmp_path) as endpoint:
        shown = api.get("/v1/host-key", params={"address": "127.0.0.1", "port": endpoint.port})
    assert shown.json()["host_key"] == endpoint.host_key
    assert shown.json()["trusted"] is False


def test_server_shows_its_rescue_session_without_secrets(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    assert api.get("/v1/servers/shop").json()["rescue_session"] is None
    session = bench.open_session(server)
    shown = api.get(f"/v1/servers/{server.server_id}").json()
    assert shown["status"] == "rescue"
    assert shown["rescue_session"]["id"] == session.session_id
    assert shown["rescue_session"]["host_key"] == session.host_key
    assert shown["rescue_session"]["expires_at"].startswith("2100-01-01")


def test_cancel_is_recorded_and_sent(bench: ApiBench, api: TestClient) -> None:
    job = bench.add_job(bench.add_server())
    answer = api.post(f"/v1/jobs/{job.job_id}/cancel", json={"reason": "the customer called"})
    assert answer.status_code == 202
    assert answer.json()["cancel_requested"].startswith("the customer called")
    assert bench.sent == [job.job_id]
    assert api.post(f"/v1/jobs/{job.job_id}/cancel").status_code == 202


def test_snapshots_newest_first(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    old = bench.add_snapshot(server, datetime(2026, 11, 1, tzinfo=UTC), verified=True)
    new = bench.add_snapshot(server, datetime(2026, 11, 2, tzinfo=UTC), verified=False)
    shown = api.get("/v1/servers/shop/snapshots").json()["items"]
    assert [item["id"] for item in shown] == [new, old]
    assert [item["verified_at"] is None for item in shown] == [True, False]


def _walk(api: TestClient, path: str, limit: int, **query: str) -> Iterable[dict[str, Any]]:
    cursor = None
    while True:
        page = api.get(
            path, params={"limit": limit, **query, **({"cursor": cursor} if cursor else {})}
        )
        items = page.json()["items"]
        assert len(items) <= limit
        yield from items
        cursor = page.json()["next"]
        if cursor is None:
            return


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_of_servers_lose_and_repeat_nothing(
    bench: ApiBench, api: TestClient, limit: int
) -> None:
    for name in ("c", "a", "f", "b", "e", "d"):
        bench.add_server(name)
    assert [s["name"] for s in _walk(api, "/v1/servers", limit)] == list("abcdef")


def test_pages_of_jobs_newest_first_and_filtered(bench: ApiBench, api: TestClient) -> None:
    shop, other = bench.add_server(), bench.add_server("other")
    made = []
    for kind in (JobKind.CHECK, JobKind.PATCH, JobKind.CHECK, JobKind.BACKUP, JobKind.CHECK):
        made.append(bench.add_job(shop, kind))
        bench.end_job(made[-1])
    open_job = bench.add_job(other)
    found = [job["id"] for job in _walk(api, "/v1/jobs", 2, server_id="shop")]
    assert found == [job.job_id for job in reversed(made)]
    checks = api.get("/v1/jobs", params={"server_id": shop.server_id, "kind": "check"}).json()
    assert {job["kind"] for job in checks["items"]} == {"check"}
    assert len(checks["items"]) == 3
    queued = api.get("/v1/jobs?status=queued").json()["items"]
    assert [job["id"] for job in queued] == [open_job.job_id]


# ---------------------------------------------------------------- Idempotency-Key


def test_same_key_and_request_same_answer(bench: ApiBench, api: TestClient) -> None:
    bench.add_node()
    headers = {"Idempotency-Key": "one"}
    first = api.post("/v1/servers", json={"name": "shop"}, headers=headers)
    again = api.post("/v1/servers", json={"name": "shop"}, headers=headers)
    assert again.json() == first.json()
    assert again.status_code == first.status_code
    assert again.headers["idempotency-replayed"] == "true"
    assert len(bench.sent) == 1


def test_same_key_with_another_request_is_refused(bench: ApiBench, api: TestClient) -> None:
    bench.add_server("one")
    bench.add_server("two")
    headers = {"Idempotency-Key": "k"}
    assert api.post(
        "/v1/servers/one/jobs", json={"kind": "check"}, headers=headers
    ).is_success  # fmt: skip
    for path, body in (
        ("/v1/servers/one/jobs", {"kind": "backup"}),
        ("/v1/servers/two/jobs", {"kind": "check"}),
    ):
        answer = api.post(path, json=body, headers=headers)
        problem(answer, 409, "idempotency-key-reused")
    assert len(bench.installation.queue.find()) == 1


def test_answer_outlives_the_state_that_allowed_it(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    headers = {"Idempotency-Key": "gone"}
    first = api.delete("/v1/servers/shop", headers=headers).json()
    bench.end_job(bench.installation.queue.job(first["id"]))
    bench.installation.inventory.set_status(server.server_id, ServerStatus.DELETED, utc_now())
    assert api.delete("/v1/servers/shop", headers=headers).json() == first


def test_refused_request_may_come_again_with_its_key(bench: ApiBench, api: TestClient) -> None:
    headers = {"Idempotency-Key": "later"}
    assert api.post("/v1/servers", json={"name": "shop"}, headers=headers).status_code == 422
    bench.add_node()
    assert api.post("/v1/servers", json={"name": "shop"}, headers=headers).status_code == 202


@pytest.mark.parametrize("what", ["servers", "enrol", "jobs"])
def test_duplicates_at_the_same_moment_make_one(
    bench: ApiBench, api: TestClient, what: str
) -> None:
    bench.add_server("busy")
    path, body = {
        "servers": ("/v1/servers", {"name": "shop"}),
        "enrol": (
            "/v1/servers/enrol",
            {"name": "old", "address": "192.0.2.1", "host_key": new_key_pair().public_key},
        ),
        "jobs": ("/v1/servers/busy/jobs", {"kind": "check"}),
    }[what]

    def ask(_: int) -> httpx.Response:
        return api.post(path, json=body, headers={"Idempotency-Key": "same"})

    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(ask, range(30)))
    assert {answer.is_success for answer in answers} == {True}, [a.text for a in answers]
    assert len({answer.text for answer in answers}) == 1
    assert len(bench.installation.queue.find()) == (0 if what == "enrol" else 1)
    with bench.installation.database.connect() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM sealed_secrets").scalar()
    assert kept == (1 if what == "enrol" else 0)


def test_without_a_key_the_second_one_finds_the_server_busy(
    bench: ApiBench, api: TestClient
) -> None:
    bench.add_server()

    def ask(_: int) -> int:
        return api.post("/v1/servers/shop/jobs", json={"kind": "check"}).status_code

    with ThreadPoolExecutor(16) as threads:
        assert sorted(threads.map(ask, range(16))) == [202] + [409] * 15
