"""What the API refuses: each with a clear problem document, and with nothing stored."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request, Response
from fastapi.testclient import TestClient

from managed.domain.errors import HypervisorUnavailable
from managed.domain.jobs import JobKind
from managed.domain.servers import ServerOrigin, ServerStatus
from managed.drivers.libvirt.registration import address_refusal, check_node
from managed.drivers.ssh.keys import new_key_pair
from tests.integration.api.conftest import ApiBench

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document, checked for what every one of them has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"] == f"urn:managed:problem:{code}"
    assert document["title"]
    assert document["detail"]
    assert document["instance"].startswith("urn:uuid:")
    return document


def jobs_of(bench: ApiBench) -> int:
    return len(bench.installation.queue.find())


def test_every_route_needs_the_token_but_health_and_openapi(bench: ApiBench) -> None:
    checked = 0
    with TestClient(bench.app, raise_server_exceptions=False) as stranger:
        for path, methods in bench.app.openapi()["paths"].items():
            for method in methods:
                if path == "/v1/webhooks/zammad":
                    continue  # signed, not by token: tests/integration/tickets
                address = path.replace("{job_id}", UNKNOWN).replace("{server}", "shop")
                address = address.replace("{request_id}", UNKNOWN)
                answer = stranger.request(method, address.replace("{node_id}", "local"))
                if path == "/healthz":
                    assert answer.status_code == 200
                    continue
                if path == "/readyz":
                    problem(answer, 503, "unavailable")
                    continue
                problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"].startswith("Bearer")
                checked += 1
        assert stranger.get("/openapi.json").status_code == 200
    assert checked >= 15


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic dTpw", "Bearer \xe9"])
def test_wrong_token_is_refused(bench: ApiBench, header: str) -> None:
    with TestClient(bench.app) as stranger:
        answer = stranger.get("/v1/servers", headers=[(b"authorization", header.encode("latin-1"))])
    problem(answer, 401, "unauthorized")


@pytest.mark.parametrize("path", ["/v1/servers", "/v1/nodes", f"/v1/jobs/{UNKNOWN}/cancel"])
@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"name": 7}'])
def test_a_strangers_body_is_not_looked_at(bench: ApiBench, path: str, body: bytes) -> None:
    with TestClient(bench.app) as stranger:
        answer = stranger.post(path, content=body, headers={"Content-Type": "application/json"})
    problem(answer, 401, "unauthorized")


def test_unknown_route_and_method(api: TestClient) -> None:
    problem(api.get("/v1/nothing"), 404, "not-found")
    problem(api.put("/v1/servers"), 405, "method-not-allowed")


def test_body_over_one_mebibyte(api: TestClient) -> None:
    body = json.dumps({"name": "x" * 2**20})
    problem(api.post("/v1/servers", content=body), 413, "body-too-large")

    def pieces() -> Any:
        for _ in range(20):
            yield b" " * 2**16

    json_type = {"Content-Type": "application/json"}
    problem(api.post("/v1/servers", content=pieces(), headers=json_type), 413, "body-too-large")


def test_defect_shows_no_trace(bench: ApiBench, api: TestClient) -> None:
    def broken(_: Request) -> Response:
        raise RuntimeError("the password is 1234")

    bench.app.router.add_route("/broken", broken)
    answer = api.get("/broken")
    document = problem(answer, 500, "internal-error")
    assert "1234" not in answer.text
    assert document["hint"]


def test_validation_names_every_field_and_repeats_no_value(
    bench: ApiBench, api: TestClient
) -> None:
    bench.add_node()
    answer = api.post(
        "/v1/servers", json={"name": "shop", "vcpus": 0, "disk_gib": "much", "sise": 1}
    )
    fields = {error["field"] for error in problem(answer, 422, "invalid-input")["data"]["errors"]}
    assert fields == {"vcpus", "disk_gib", "sise"}
    assert "much" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"kind": "reinstall"}',
        b'{"kind": null}',
        b'{"kind": {}}',
        b'{"kind": "check\\u0000"}',
        b'{"kind": "\\ud800"}',
        b'{"kind": "check", "\\ud800": 1}',
        b'{"kind": "check", "run_key": "a\\u0000b"}',
        b'{"kind": "check", "run_key": "\\ud83d"}',
        b'{"kind": "check", "urls": ["http://a/\\u0000"]}',
        b'{"kind": "check", "urls": ["file:///etc/shadow"]}',
        b'{"kind": "rescue", "hours": 73}',
        b'{"kind": "rescue", "hours": 1e400}',
        b'{"kind": "rescue", "hours": NaN}',
        b'{"kind": "rescue", "hours": ' + b"9" * 100 + b"}",
        b'{"kind": "rescue", "hours": ' + b"9" * 5000 + b"}",
        b'{"kind": "harden", "extra_ports": ["65536/tcp"]}',
        b'{"kind": "harden", "extra_ports": [8443]}',
        b'{"kind": "harden", "extra_ports": ["80/tcp; reboot"]}',
        b'{"kind": "power"}',
        b'{"kind": "power", "action": "explode"}',
        b'{"kind": "restore", "snapshot_id": "../../x"}',
        b'{"kind": "restore", "as_of": "2026-11-23T02:00:00"}',
        b'{"kind": "backup", "parameters": {}}',
        b"[" * 100_000,
    ],
)
def test_senseless_job_is_refused(bench: ApiBench, api: TestClient, body: bytes) -> None:
    bench.add_server()
    answer = api.post(
        "/v1/servers/shop/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    problem(answer, answer.status_code, answer.json()["code"])
    assert jobs_of(bench) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Shop"),
        ("name", "-"),
        ("name", "a" * 64),
        ("name", "a\x00b"),
        ("name", "\u202eabc"),
        ("vcpus", 257),
        ("memory_mib", 10**30),
        ("disk_gib", 1),
        ("operating_system", "debian-11"),
        ("node_id", "elsewhere"),
        ("forwards", [{"guest_port": 0}]),
        ("forwards", [{"guest_port": 80}, {"guest_port": 80}]),
        ("forwards", [{"guest_port": 22, "host_port": 22}]),
        ("authorized_keys", ["ssh-ed25519 AAAA"]),
        ("authorized_keys", ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI\u2026 anna"]),
        ("authorized_keys", ["-----BEGIN OPENSSH PRIVATE KEY-----"]),
        ("authorized_keys", ["command=x ssh-ed25519 AAAA\nssh-ed25519 AAAA"]),
    ],
)
def test_senseless_server_is_refused(
    bench: ApiBench, api: TestClient, field: str, value: object
) -> None:
    bench.add_node()
    answer = api.post("/v1/servers", json={"name": "shop", field: value})
    if value == "elsewhere":
        problem(answer, 404, "not-found")
    else:
        problem(answer, 422, "invalid-input")
    assert bench.installation.inventory.find() == []
    assert bench.sent == []


def test_node_must_be_named_when_there_is_not_exactly_one(bench: ApiBench, api: TestClient) -> None:
    none = problem(api.post("/v1/servers", json={"name": "shop"}), 422, "invalid-input")
    assert none["data"] == {"field": "node_id"}
    bench.add_node()
    bench.add_node("second")
    several = problem(api.post("/v1/servers", json={"name": "shop"}), 422, "invalid-input")
    assert "more than one" in several["detail"]
    answer = api.post("/v1/servers", json={"name": "shop", "node_id": "second"})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    "path",
    [
        "/v1/servers/nobody",
        f"/v1/servers/{UNKNOWN}",
        "/v1/servers/nobody/snapshots",
        f"/v1/jobs/{UNKNOWN}",
        f"/v1/jobs/{UNKNOWN}/events",
        "/v1/jobs?server_id=nobody",
        f"/v1/jobs?cursor={UNKNOWN}",
        "/v1/nodes/nowhere",
    ],
)
def test_unknown_things_are_not_found(api: TestClient, path: str) -> None:
    problem(api.get(path), 404, "not-found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/servers/%00",
        "/v1/servers/a%00b",
        "/v1/servers/%ff%fe",
        "/v1/servers?cursor=%00",
        "/v1/servers?limit=0",
        "/v1/servers?limit=99999999999999999999999",
        "/v1/jobs/not-a-uuid",
        "/v1/jobs/%00",
        "/v1/jobs?cursor=1",
        "/v1/jobs?kind=x%00",
        "/v1/jobs?status=odd",
        f"/v1/jobs/{UNKNOWN}/events?after=99999999999999999999999",
        f"/v1/jobs/{UNKNOWN}/events?after=-1",
        "/v1/host-key?address=%00",
        "/v1/host-key?address=-oProxyCommand=x",
        "/v1/host-key?address=127.0.0.1&port=70000",
        "/v1/nodes/%00",
    ],
)
def test_odd_addresses_are_refused(api: TestClient, path: str) -> None:
    problem(api.get(path), 422, "invalid-input")


@pytest.mark.parametrize(
    ("method", "path", "wrong", "known"),
    [
        ("GET", "/v1/jobs?server=shop&limit=5", "server", "server_id"),
        ("GET", "/v1/servers?offset=3", "offset", "cursor"),
        ("GET", "/v1/nodes?offset=5", "offset", "limit"),
        ("GET", "/v1/host-key?address=127.0.0.1&Port=22", "Port", "port"),
        ("POST", "/v1/servers/shop/jobs?kind=check", "kind", "none at all"),
        ("DELETE", "/v1/servers/shop?force=1", "force", "none at all"),
        ("GET", "/healthz?deep=1", "deep", "none at all"),
    ],
)
def test_a_misspelt_query_parameter_does_not_pass_silently(
    bench: ApiBench, api: TestClient, method: str, path: str, wrong: str, known: str
) -> None:
    bench.add_server()
    body = {"kind": "check"} if method == "POST" else None
    document = problem(api.request(method, path, json=body), 422, "invalid-input")
    assert document["data"]["field"] == wrong
    assert known in document["hint"]
    assert jobs_of(bench) == 0


def test_job_on_unknown_server(bench: ApiBench, api: TestClient) -> None:
    problem(api.post("/v1/servers/nobody/jobs", json={"kind": "check"}), 404, "not-found")
    problem(api.delete("/v1/servers/nobody"), 404, "not-found")


def test_busy_server_names_its_job(bench: ApiBench, api: TestClient) -> None:
    job = bench.add_job(bench.add_server(), JobKind.PATCH)
    document = problem(
        api.post("/v1/servers/shop/jobs", json={"kind": "backup"}), 409, "server-busy"
    )
    assert document["data"]["job_id"] == job.job_id
    assert jobs_of(bench) == 1


def test_new_server_with_its_create_job_is_busy(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server(status=ServerStatus.NEW)
    job = bench.add_job(server, JobKind.CREATE)
    answer = api.post("/v1/servers/shop/jobs", json={"kind": "patch"})
    assert problem(answer, 409, "server-busy")["data"]["job_id"] == job.job_id


@pytest.mark.parametrize("kind", ["rescue", "restore", "patch"])
def test_new_server_takes_no_job_that_would_end_its_creation(
    bench: ApiBench, api: TestClient, kind: str
) -> None:
    server = bench.add_server(status=ServerStatus.NEW)
    job = bench.add_job(server, JobKind.CREATE)
    answer = api.post("/v1/servers/shop/jobs", json={"kind": kind})
    assert answer.status_code == 409
    assert bench.installation.queue.job(job.job_id).cancel_requested == ""
    assert jobs_of(bench) == 1


def test_restore_needs_a_verified_backup(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    body = {"kind": "restore"}
    problem(api.post("/v1/servers/shop/jobs", json=body), 409, "no-backup")
    unverified = bench.add_snapshot(server, NOON, verified=False)
    problem(api.post("/v1/servers/shop/jobs", json=body), 409, "no-backup")
    named = {"kind": "restore", "snapshot_id": unverified}
    problem(api.post("/v1/servers/shop/jobs", json=named), 409, "no-backup")
    bench.add_snapshot(server, NOON, verified=True)
    early = {"kind": "restore", "as_of": "2026-11-23T11:59:59Z"}
    problem(api.post("/v1/servers/shop/jobs", json=early), 409, "no-backup")
    unknown = {"kind": "restore", "snapshot_id": "ab" * 32}
    problem(api.post("/v1/servers/shop/jobs", json=unknown), 404, "not-found")
    assert jobs_of(bench) == 2
    assert api.post("/v1/servers/shop/jobs", json=body).status_code == 202


@pytest.mark.parametrize("as_of", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_no_backup_is_as_of_an_end_of_the_calendar(
    bench: ApiBench, api: TestClient, as_of: str
) -> None:
    bench.add_snapshot(bench.add_server(), NOON, verified=True)
    before = jobs_of(bench)
    body = {"kind": "restore", "as_of": as_of}
    problem(api.post("/v1/servers/shop/jobs", json=body), 422, "invalid-input")
    assert jobs_of(bench) == before


@pytest.mark.parametrize(
    "body", [{"kind": "rescue"}, {"kind": "restore"}, {"kind": "power", "action": "stop"}]
)
def test_enrolled_server_cannot_be_rescued(
    bench: ApiBench, api: TestClient, body: dict[str, str]
) -> None:
    bench.add_server(origin=ServerOrigin.ENROLLED)
    problem(api.post("/v1/servers/shop/jobs", json=body), 409, "not-supported")
    assert jobs_of(bench) == 0


def test_rescue_session_excludes_routine_work(bench: ApiBench, api: TestClient) -> None:
    server = bench.add_server()
    problem(api.post("/v1/servers/shop/jobs", json={"kind": "unrescue"}), 409, "conflict")
    session = bench.open_session(server)
    for kind in ("patch", "harden", "backup", "check"):
        answer = api.post("/v1/servers/shop/jobs", json={"kind": kind})
        assert problem(answer, 409, "conflict")["data"]["session_id"] == session.session_id
    assert api.post("/v1/servers/shop/jobs", json={"kind": "unrescue"}).status_code == 202


@pytest.mark.parametrize(
    ("storage", "what"),
    [
        ("{folder}/missing", "no folder"),
        ("{folder}/a-file", "no folder"),
        ("{folder}/../{name}", "plain form"),
        ("/proc", "cannot be written"),
    ],
)
def test_a_node_without_a_usable_folder_is_refused(
    bench: ApiBench, api: TestClient, tmp_path: Path, storage: str, what: str
) -> None:
    (tmp_path / "a-file").touch()
    answer = api.post("/v1/nodes", json={
        "name": "second", "libvirt_uri": "qemu:///system",
        "storage_dir": storage.format(folder=tmp_path, name=tmp_path.name),
    })  # fmt: skip
    document = problem(answer, 422, "invalid-input")
    assert what in document["detail"]
    assert document["data"]["field"] == "storage_dir"
    assert bench.installation.inventory.nodes() == []


def test_a_node_whose_libvirt_does_not_answer_is_refused(
    bench: ApiBench, api: TestClient, tmp_path: Path
) -> None:
    uri = f"qemu+unix:///session?socket={tmp_path}/none"
    answer = api.post(
        "/v1/nodes", json={"name": "second", "libvirt_uri": uri, "storage_dir": str(tmp_path)}
    )
    assert uri in problem(answer, 503, "hypervisor-unavailable")["detail"]
    assert bench.installation.inventory.nodes() == []


def test_a_node_that_accepts_and_says_nothing_is_given_up(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    with socket.create_server(("127.0.0.1", unused_tcp_port)):
        uri = f"qemu+tcp://127.0.0.1:{unused_tcp_port}/system"
        began = time.monotonic()
        with pytest.raises(HypervisorUnavailable, match="no answer within 2 s"):
            check_node(uri, str(tmp_path), connect_seconds=2)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ext://node/system?command={program}",
        "qemu+ssh://node/system?no_tty=1&command={program}",
        "qemu+ssh://node/system?no_tty=1;command={program}",
        "qemu+ssh://node/system?COMMAND={program}",
        "qemu+ssh://node/system?%63ommand={program}",
        "qemu+ssh://node/system?c%6Fmm%61nd={program}",
        "qemu+ssh://node/system?no_tty=1%26&%43ommand={program}",
        "qemu+libssh2://node/system?no_verify=1",
        "qemu+ssh://node/system?netcat={program}",
        "qemu+ssh://-oProxyCommand={program}/system",
        "qemu+ssh://-oProxyCommand@node/system",
        "qemu+ssh://node/system?name=test:///default",
        "qemu:///embed?root=/srv",
        "qemu+ssh://[node/system",
        "qemu+ssh://n\u00f6de/system",
    ],
)
def test_an_address_that_could_run_a_program_here_is_refused(
    bench: ApiBench, api: TestClient, tmp_path: Path, uri: str
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/it-ran\n")
    program.chmod(0o755)
    address = uri.format(program=program)
    body = {"name": "second", "libvirt_uri": address, "storage_dir": str(tmp_path)}
    document = problem(api.post("/v1/nodes", json=body), 422, "invalid-input")
    assert document["data"]["field"] == "libvirt_uri"
    assert not (tmp_path / "it-ran").exists()
    assert bench.installation.inventory.nodes() == []


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu:///session",
        "qemu+unix:///system?socket=/run/managed-lab/x/libvirt-sock",
        "qemu+ssh://root@node-1.example.org:2222/system?keyfile=/root/key&no_tty=1",
        "qemu+ssh://root@[2001:db8::1]/system",
        "qemu+tls://node/system?pkipath=/etc/pki/node",
    ],
)
def test_usual_addresses_are_taken(uri: str) -> None:
    assert address_refusal(uri) is None


def test_used_name_and_port(bench: ApiBench, api: TestClient) -> None:
    bench.add_node()
    first = api.post("/v1/servers", json={"name": "shop"}).json()
    problem(api.post("/v1/servers", json={"name": "shop"}), 409, "already-exists")
    port = first["server"]["forwards"][0]["host_port"]
    taken = {"name": "other", "forwards": [{"guest_port": 22, "host_port": port}]}
    problem(api.post("/v1/servers", json=taken), 409, "already-exists")
    assert [server.name for server in bench.installation.inventory.find()] == ["shop"]


def test_used_run_key(bench: ApiBench, api: TestClient) -> None:
    bench.add_server()
    body = {"kind": "check", "run_key": "night"}
    job = api.post("/v1/servers/shop/jobs", json=body).json()
    bench.end_job(bench.installation.queue.job(job["id"]))
    again = problem(api.post("/v1/servers/shop/jobs", json=body), 409, "already-exists")
    assert again["data"]["job_id"] == job["id"]


def test_a_run_key_of_the_clocks_is_refused(bench: ApiBench, api: TestClient) -> None:
    """Nobody can keep the clock from ending a session by taking its key first."""
    server = bench.add_server()
    session = bench.open_session(server)
    bench.installation.end_abandoned_session(session)
    key = bench.installation.queue.find()[0].run_key
    answer = api.post("/v1/servers/shop/jobs", json={"kind": "unrescue", "run_key": key})
    assert problem(answer, 422, "invalid-input")["data"] is not None


def test_ended_job_cannot_be_cancelled(bench: ApiBench, api: TestClient) -> None:
    job = bench.add_job(bench.add_server())
    bench.end_job(job)
    answer = api.post(f"/v1/jobs/{job.job_id}/cancel", json={"reason": "late"})
    problem(answer, 409, "conflict")


def test_refused_enrolment_leaves_no_key(bench: ApiBench, api: TestClient) -> None:
    bench.add_server()
    body = {"name": "shop", "address": "192.0.2.1", "host_key": new_key_pair().public_key}
    problem(api.post("/v1/servers/enrol", json=body), 409, "already-exists")
    problem(
        api.post("/v1/servers/enrol", json={**body, "host_key": "ssh-ed25519 AAAA"}),
        422,
        "invalid-input",
    )
    problem(api.post("/v1/servers/enrol", json={**body, "ssh_user": "a b"}), 422, "invalid-input")
    with bench.installation.database.connect() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM sealed_secrets").scalar()
    assert kept == 0


def test_enrolment_that_is_not_committed_leaves_no_key(
    bench: ApiBench, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("after everything was written, before the commit")

    monkeypatch.setattr("api.idempotency.keep_answer", fail)
    body = {"name": "shop", "address": "192.0.2.1", "host_key": new_key_pair().public_key}
    answer = api.post("/v1/servers/enrol", json=body, headers={"Idempotency-Key": "one"})
    problem(answer, 500, "internal-error")
    with bench.installation.database.connect() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM sealed_secrets").scalar()
    assert kept == 0
    assert bench.installation.inventory.find() == []


def test_unreachable_server_shows_no_host_key(api: TestClient, unused_tcp_port: int) -> None:
    answer = api.get("/v1/host-key", params={"address": "127.0.0.1", "port": unused_tcp_port})
    problem(answer, 503, "server-unreachable")
    assert int(answer.headers["retry-after"]) > 0


def test_lost_database_is_unavailable(bench: ApiBench, api: TestClient) -> None:
    with bench.installation.database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE nodes RENAME TO gone")
    answer = api.get("/v1/nodes")
    problem(answer, 503, "database-unavailable")
    assert answer.headers["retry-after"] == "1"


def test_a_body_that_cannot_be_read_is_an_answer_of_the_document(
    bench: ApiBench, api: TestClient
) -> None:
    bench.add_server()
    answer = api.post(
        "/v1/pause", content=b'{"a": "\xff"}', headers={"Content-Type": "application/json"}
    )
    documented = bench.app.openapi()["paths"]["/v1/pause"]["post"]["responses"]
    assert str(answer.status_code) in documented
    assert answer.status_code == 400


def test_a_long_key_of_somebody_with_a_long_name_fits(bench: ApiBench, api: TestClient) -> None:
    headers = {"Idempotency-Key": "k" * 120, "X-Requested-By": "n" * 100}
    body = {"name": "Anna", "email": "a" * 241 + "@example.org"}
    assert api.post("/v1/customers", json=body, headers=headers).status_code == 201
    again = api.post("/v1/customers", json=body, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    with bench.installation.database.connect() as connection:
        (kept,) = connection.exec_driver_sql("SELECT key FROM idempotency_keys").scalars()
    assert len(kept) <= 255
