"""Many existing servers at once: all of a table, or nothing of it."""

from __future__ import annotations

import csv
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from managed.cli import run
from managed.client import ManagedClient
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.secrets import SecretPurpose
from managed.drivers.ssh.keys import new_key_pair
from managed.storage.database import writing
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench

PATH = "/v1/servers/enrol/csv"
CSV = {"Content-Type": "text/csv"}


def row(name: str, customer: str = "", plan: str = "") -> str:
    return f"{name},192.0.2.1,{new_key_pair().public_key},{customer},{plan}"


def written(*rows: str) -> str:
    return "\r\n".join(["name,address,host_key,customer,plan", *rows])


def names(api: TestClient) -> list[str]:
    return [one["name"] for one in api.get("/v1/servers").json()["items"]]


def audited(api: TestClient) -> list[dict[str, Any]]:
    return [one for one in api.get("/v1/audit").json()["items"] if one["action"] == "enrol_servers"]


@pytest.fixture
def anna(bench: ApiBench) -> Customer:
    anna = Customer(str(uuid.uuid4()), "Anna Shop Ltd", "anna@example.org")
    with writing(bench.installation.database) as connection:
        bench.installation.customers.add(connection, anna, utc_now())
        plus = Plan(str(uuid.uuid4()), "plus", PlanKind.MANAGED)
        bench.installation.customers.add_plan(connection, plus, utc_now())
    return anna


def test_all_rows_are_stored_each_with_a_key_of_its_own(
    bench: ApiBench, api: TestClient, anna: Customer
) -> None:
    content = written(row("one", anna.name, "plus"), row("two"))
    answer = api.post(PATH, content=content, headers={**CSV, "Idempotency-Key": "k"})
    assert answer.status_code == 201
    items = answer.json()["items"]
    assert [item["line"] for item in items] == [2, 3]
    assert len({item["authorized_keys_line"] for item in items}) == 2
    for item in items:
        assert bench.installation.vault.secret(item["server_id"], SecretPurpose.LOGIN_KEY)
    placed = api.get("/v1/servers/one").json()
    assert placed["customer_id"] == anna.customer_id
    assert placed["plan_id"]
    assert audited(api)[0]["data"]["servers"] == {i["name"]: i["server_id"] for i in items}

    again = api.post(PATH, content=content, headers={**CSV, "Idempotency-Key": "k"})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == answer.json()
    other = api.post(PATH, content=written(row("x")), headers={**CSV, "Idempotency-Key": "k"})
    assert other.json()["code"] == "idempotency-key-reused"


def test_one_wrong_row_refuses_all_of_them(bench: ApiBench, api: TestClient) -> None:
    bench.add_server("there")
    content = written(row("good"), row("there"), row("more", "Nobody", "none"), row("Bad"))
    answer = api.post(PATH, content=content, headers=CSV)
    assert answer.status_code == 422
    found = [(one["line"], one["column"]) for one in answer.json()["data"]["errors"]]
    assert found == [(3, "name"), (4, "customer"), (4, "plan"), (5, "name")]
    assert names(api) == ["there"]

    dry = api.post(PATH, params={"dry_run": "true"}, content=content, headers=CSV)
    assert dry.status_code == 200
    assert [(one["line"], one["column"]) for one in dry.json()["problems"]] == found
    assert [(one["line"], one["server_id"]) for one in dry.json()["items"]] == [(2, None)]
    assert names(api) == ["there"]
    assert audited(api) == []


def test_what_is_not_sent_as_csv_is_refused(api: TestClient) -> None:
    for media_type in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        answer = api.post(PATH, content=b'"a"', headers={"Content-Type": media_type})
        assert answer.status_code == 422, media_type


def test_the_command_line_lists_problems_and_writes_keys(
    live: ManagedClient,
    bench: ApiBench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("managed.cli.enrolment.client", lambda: live)
    file, keys = tmp_path / "servers.csv", tmp_path / "keys.csv"
    file.write_text(written(row("one"), row("Two")), newline="")
    words = ["servers", "enrol-csv", str(file)]
    assert run([*words, "--dry-run"]) == 1
    said = capsys.readouterr().out
    assert "dry run" in said
    assert "is not a server name" in " ".join(said.split())
    assert run(words) == 1
    assert "is not a server name" in " ".join(capsys.readouterr().out.split())
    file.write_text(written(row("one"), row("two")), newline="")
    assert run([*words, "--output", str(keys)]) == 0
    with keys.open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [one["name"] for one in found] == ["one", "two"]
    assert all(one["authorized_keys_line"].startswith("ssh-ed25519 ") for one in found)
    assert len(bench.installation.inventory.find()) == 2


def test_lines_of_keys_are_printed_whole_to_be_copied(
    live: ManagedClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("managed.cli.enrolment.client", lambda: live)
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "servers.csv"
    file.write_text(written(row("one"), row("two")), newline="")
    assert run(["servers", "enrol-csv", str(file)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ssh-")]
    assert len(lines) == 2
    assert all(re.fullmatch(r"ssh-ed25519 \S{68} managed", line) for line in lines)
