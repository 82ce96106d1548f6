"""Times at the ends of the calendar are refused wherever the API takes one: they cannot be moved to
another zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.cursors import cursor_of
from tests.integration.api.conftest import ApiBench
from tests.integration.api.test_refusals import problem

ENDS: Final = (
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00Z",
    "1999-12-31T23:59:59Z",
    "2100-01-01T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
)


def is_moment(schema: dict[str, Any]) -> bool:
    return any(one.get("format") == "date-time" for one in (schema, *schema.get("anyOf", ())))


def filters(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every list and its filters by time, as the document has them."""
    for path, methods in app.openapi()["paths"].items():
        for one in methods.get("get", {}).get("parameters", ()):
            if one["in"] == "query" and is_moment(one["schema"]):
                yield path, one["name"]


@pytest.mark.parametrize("end", ENDS)
def test_no_filter_takes_a_time_at_the_calendars_ends(
    bench: ApiBench, api: TestClient, end: str
) -> None:
    found = list(filters(bench.app))
    assert {path for path, _ in found} == {
        "/v1/jobs",
        "/v1/audit",
        "/v1/surveys",
        "/v1/missed-windows",
    }
    for path, name in found:
        refusal = problem(api.get(path, params={name: end}), 422, "invalid-input")
        assert "the year must be from 2000 to 2099" in refusal["detail"], (path, name)


@pytest.mark.parametrize("path", ["/v1/missed-windows", "/v1/surveys"])
@pytest.mark.parametrize("end", [*ENDS, "2026-01-01T00:00:00", "yesterday", ""])
def test_no_cursor_does(api: TestClient, path: str, end: str) -> None:
    cursor = cursor_of(end, "b", "patch")
    refusal = problem(api.get(path, params={"cursor": cursor}), 422, "invalid-input")
    assert "no cursor of this list" in refusal["detail"]


@pytest.mark.parametrize("end", ENDS)
def test_no_body_does(bench: ApiBench, api: TestClient, end: str) -> None:
    server = bench.add_server("shop")
    request = bench.add_request(server)
    bodies: dict[str, dict[str, Any]] = {
        "/v1/servers/shop/jobs": {"kind": "restore", "as_of": end},
        f"/v1/requests/{request}/approve": {"action": {"kind": "restore-server", "as_of": end}},
    }
    for path, body in bodies.items():
        refusal = problem(api.post(path, json=body), 422, "invalid-input")
        assert "the year must be from 2000 to 2099" in refusal["detail"], path


@pytest.mark.parametrize("day", ["0001-01-01", "1999-12-31", "2100-01-01", "9999-12-31"])
def test_no_window_counts_from_such_a_day(api: TestClient, day: str) -> None:
    assert api.post("/v1/plans", json={"name": "plus"}).status_code == 201
    window = {"owner": "plan", "owner_id": "plus", "job_kind": "patch", "rule": "FREQ=DAILY"}
    wrong = api.post("/v1/windows", json=window | {"starts_on": day})
    assert "the year must be from 2000 to 2099" in problem(wrong, 422, "invalid-input")["detail"]
    made = api.post("/v1/windows", json=window | {"starts_on": "2000-01-01"}).json()
    changed = api.patch(f"/v1/windows/{made['id']}", json={"starts_on": day})
    assert "the year must be from 2000 to 2099" in problem(changed, 422, "invalid-input")["detail"]
