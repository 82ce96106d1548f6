"""Numbers for Prometheus, the id of a request, and the line that it leaves in the log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.api.conftest import ApiBench
from tests.support.promtool import require_content
from tests.support.waiting import wait_until


@pytest.fixture
def reader(bench: ApiBench) -> Iterator[TestClient]:
    """Holds the metrics token and no other."""
    token = bench.installation.settings.metrics_token.read_text().strip()
    with TestClient(bench.app, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


def test_prometheus_can_read_the_numbers(bench: ApiBench, reader: TestClient) -> None:
    bench.add_job(bench.add_server())
    answer = reader.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    (sample,) = families["managed_jobs"].samples
    assert (sample.labels, sample.value) == ({"status": "queued", "kind": "check"}, 1)
    assert families["managed_queue_oldest_seconds"].samples[0].value >= 0
    require_content("check", "metrics", given=answer.text)


def test_each_token_opens_its_own_door(
    bench: ApiBench, api: TestClient, reader: TestClient
) -> None:
    assert api.get("/metrics").status_code == 401
    assert reader.get("/v1/servers").status_code == 401
    with TestClient(bench.app) as stranger:
        assert stranger.get("/metrics").status_code == 401


def test_the_callers_request_id_is_kept_and_an_odd_one_is_not(api: TestClient) -> None:
    given = {"X-Request-ID": "ticket-17.a"}
    assert api.get("/v1/servers", headers=given).headers["X-Request-ID"] == "ticket-17.a"
    found = {api.get("/v1/servers").headers["X-Request-ID"] for _ in range(3)}
    assert len(found) == 3
    for odd in ("a b", "x" * 65, 'a","event":"forged'):
        assert api.get("/v1/servers", headers={"X-Request-ID": odd}).headers["X-Request-ID"] != odd


def test_a_request_leaves_a_line_with_its_id_and_without_its_secrets(
    bench: ApiBench, unused_tcp_port: int, tmp_path: Path
) -> None:
    """The lines that a real API process writes."""
    settings = bench.installation.settings.model_copy(
        update={"listen_port": unused_tcp_port, "log_format": "json"}
    )
    log = tmp_path / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"],
            env=settings.environment(),
            stdout=output,
            stderr=output,
        )
    address = f"http://127.0.0.1:{unused_tcp_port}"
    try:
        wait_until(lambda: answers(address), timeout=60, what="the API answers")
        headers = {**bench.headers, "X-Request-ID": "the-one"}
        asked = httpx.get(f"{address}/v1/jobs?server=secret-of-somebody", headers=headers)
        assert asked.status_code == 422
        httpx.get(f"{address}/readyz")
    finally:
        process.terminate()
        process.wait(30)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["request_id"], line["method"], line["path"]) == ("the-one", "GET", "/v1/jobs")
    assert (line["status"], line["level"]) == (422, "info")
    (refused,) = [line for line in lines if line["event"] == "request_failed"]
    assert refused["request_id"]
    assert not [line for line in lines if bench.token in str(line) or "secret-of" in str(line)]


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=5).is_success
    except httpx.HTTPError:
        return False
