"""The page of all routes: whole, and without anything from elsewhere."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.integration.api.conftest import ApiBench


def test_every_route_is_on_the_page(bench: ApiBench, api: TestClient) -> None:
    page = api.get("/docs").text
    for path, methods in bench.app.openapi()["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page


def test_the_page_runs_no_script_and_loads_nothing_from_elsewhere(api: TestClient) -> None:
    answer = api.get("/docs")
    assert "<script" not in answer.text
    assert "//" not in answer.text.partition("<main>")[0]
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert api.get("/redoc").status_code == 404
