"""Restores of files over API and command line: asked for, refused, and the backup looked into."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.snapshot_views import SnapshotPathView
from managed.domain.customers import Customer
from managed.domain.jobs import JobKind
from managed.domain.manifests import EntryKind, ManifestEntry, manifest_lines
from managed.domain.servers import Server, ServerStatus
from managed.domain.snapshots import KeptObject
from managed.drivers.fakes.objects import FakeObjectStore
from managed.storage.database import writing
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_command_line import managed
from tests.integration.api.test_refusals import problem

__all__ = ["managed"]

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ENTRIES = [
    *(ManifestEntry(path, EntryKind.DIRECTORY, 0o755, 0, 0, 0) for path in ("/", "/etc")),
    ManifestEntry("/etc/fstab", EntryKind.FILE, 0o644, 0, 0, 1_700_000_000_000_000_000, size=7),
    ManifestEntry("/etc/latin-\udce8", EntryKind.FILE, 0o644, 0, 0, 0, size=1),
    ManifestEntry("/etc/nginx", EntryKind.DIRECTORY, 0o2750, 0, 33, 0),
    ManifestEntry("/etc/nginx/conf", EntryKind.FILE, 0o644, 0, 0, 0, size=9),
    ManifestEntry("/etc/passwd", EntryKind.FILE, 0o644, 0, 0, -(10**19), size=8),
    ManifestEntry("/etc-link", EntryKind.SYMLINK, 0o777, 0, 0, 0, target="etc"),
]


@pytest.fixture
def objects(bench: ApiBench) -> FakeObjectStore:
    """The bucket in memory."""
    store = FakeObjectStore()
    services = bench.app.state.services
    bench.app.state.services = replace(services, objects=lambda: store)
    return store


@pytest.fixture
def shop(bench: ApiBench) -> Server:
    return bench.add_server("shop")


@pytest.fixture
def snapshot(bench: ApiBench, shop: Server, objects: FakeObjectStore) -> str:
    snapshot_id = bench.add_snapshot(shop, NOON, verified=True)
    content = gzip.compress("".join(manifest_lines(ENTRIES)).encode())
    objects.put("manifest", content)
    kept = KeptObject("manifest", hashlib.sha256(content).hexdigest())
    with bench.installation.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE snapshots SET manifest_key = ?, manifest_sha256 = ?", (kept.key, kept.sha256)
        )
    return snapshot_id


def test_what_is_asked_for_becomes_a_job(bench: ApiBench, api: TestClient, snapshot: str) -> None:
    body = {"kind": "restore-files", "paths": ["/etc/nginx"], "target": "in-place"}
    answer = api.post("/v1/servers/shop/jobs", json=body)

    assert answer.status_code == 202, answer.text
    job = bench.installation.queue.job(answer.json()["id"])
    assert job.kind is JobKind.RESTORE_FILES
    assert job.parameters == {"paths": ["/etc/nginx"], "target": "in-place"}


@pytest.mark.parametrize(
    "paths", [[], ["etc"], ["/"], ["/proc/1"], ["/etc/../root"], ["/a\nb"], ["/a/"], ["/a"] * 101]
)
def test_paths_that_nobody_can_restore_are_refused(
    api: TestClient, snapshot: str, paths: list[str]
) -> None:
    body = {"kind": "restore-files", "paths": paths}
    problem(api.post("/v1/servers/shop/jobs", json=body), 422, "invalid-input")


def test_the_backup_of_another_server_of_the_same_customer(
    bench: ApiBench, api: TestClient, snapshot: str, shop: Server
) -> None:
    spare = bench.add_server("spare")
    body = {"kind": "restore-files", "paths": ["/etc/nginx"], "from_server": "shop"}
    customers = bench.installation.customers
    anna = Customer("00000000-0000-4000-8000-0000000000aa", "Anna", "")
    with writing(bench.installation.database) as connection:
        customers.add(connection, anna, NOON)
        customers.place(connection, spare, anna.customer_id, None, utc_now())
    problem(api.post("/v1/servers/spare/jobs", json=body), 409, "not-supported")
    with writing(bench.installation.database) as connection:
        customers.place(connection, shop, anna.customer_id, None, utc_now())
    answer = api.post("/v1/servers/spare/jobs", json=body)

    assert answer.status_code == 202, answer.text
    assert answer.json()["parameters"]["from_server"] == shop.server_id
    assert answer.json()["server_id"] == spare.server_id


def test_without_a_verified_backup_or_a_running_server_nothing_is_restored(
    bench: ApiBench, api: TestClient, shop: Server
) -> None:
    body = {"kind": "restore-files", "paths": ["/etc/nginx"]}
    problem(api.post("/v1/servers/shop/jobs", json=body), 409, "no-backup")
    bench.add_snapshot(shop, NOON, verified=True)
    bench.installation.inventory.set_status(shop.server_id, ServerStatus.BROKEN, utc_now())
    assert problem(api.post("/v1/servers/shop/jobs", json=body), 409, "conflict")["hint"]


def test_a_safety_snapshot_restores_files_and_no_server(
    bench: ApiBench, api: TestClient, shop: Server
) -> None:
    safety = bench.add_snapshot(shop, NOON, verified=True, paths=("/etc/nginx",))
    assert api.get("/v1/servers/shop/snapshots").json()["items"][0]["paths"] == ["/etc/nginx"]
    whole = {"kind": "restore", "snapshot_id": safety}
    problem(api.post("/v1/servers/shop/jobs", json=whole), 409, "not-supported")
    problem(api.post("/v1/servers/shop/jobs", json={"kind": "restore"}), 409, "no-backup")
    files = {"kind": "restore-files", "paths": ["/etc/nginx"]}
    problem(api.post("/v1/servers/shop/jobs", json=files), 409, "no-backup")
    named = {**files, "snapshot_id": safety}
    assert api.post("/v1/servers/shop/jobs", json=named).status_code == 202


def test_a_backup_is_looked_into_folder_by_folder(api: TestClient, snapshot: str) -> None:
    address = f"/v1/servers/shop/snapshots/{snapshot}/paths"
    assert [p["path"] for p in api.get(address).json()["items"]] == ["/etc", "/etc-link"]
    shown: list[dict[str, Any]] = []
    query: dict[str, Any] = {"under": "/etc", "limit": 2}
    while True:
        page = api.get(address, params=query).json()
        shown += page["items"]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]

    assert [p["path"] for p in shown] == [
        *("/etc/fstab", "/etc/latin-\ufffd", "/etc/nginx", "/etc/passwd")
    ]
    assert [p["is_exact"] for p in shown] == [True, False, True, True]
    assert shown[0]["modified_at"] == "2023-11-14T22:13:20Z"
    assert shown[2]["mode"] == "2750"
    assert shown[3]["modified_at"] is None
    for odd in ({"under": "/etc/fstab"}, {"under": "/nowhere"}):
        problem(api.get(address, params=odd), 404, "not-found")
    problem(api.get(address, params={"cursor": "%"}), 422, "invalid-input")


def test_what_is_not_ours_is_not_shown(
    bench: ApiBench, api: TestClient, snapshot: str, objects: FakeObjectStore
) -> None:
    bench.add_server("other")
    problem(api.get(f"/v1/servers/other/snapshots/{snapshot}/paths"), 404, "not-found")
    objects.put("manifest", b"something else")
    answer = api.get(f"/v1/servers/shop/snapshots/{snapshot}/paths")
    assert answer.json()["code"] == "evidence-missing"


def test_the_example_of_a_path_is_a_full_one() -> None:
    [example] = SnapshotPathView.model_json_schema()["examples"]
    assert SnapshotPathView.model_validate(example).model_dump(mode="json") == example


@pytest.mark.usefixtures("objects")
def test_the_command_line_asks_for_it(
    bench: ApiBench, managed: Any, shop: Server, snapshot: str
) -> None:
    found = managed("snapshots", "paths", "shop", "--under", "/etc/nginx")
    assert [p["path"] for p in found["items"]] == ["/etc/nginx/conf"]
    bench.add_server("spare")
    options = ("--snapshot", snapshot[:8], "--in-place", "--to", "spare")
    job = managed("servers", "restore-files", "shop", "/etc/nginx", "/srv", *options)
    assert job["parameters"] == {
        "paths": ["/etc/nginx", "/srv"],
        "snapshot_id": snapshot,
        "target": "in-place",
        "from_server": shop.server_id,
    }
    beside = managed("servers", "restore-files", "shop", "/srv", "--as-of", "2026-11-24T00:00:00")
    assert beside["parameters"]["target"] == "beside"
    assert datetime.fromisoformat(beside["parameters"]["as_of"]).tzinfo is not None
