"""Event streams over a real socket, through our own client; and the OpenAPI document."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from api import access_views, notification_views, planning_views, schemas
from api.notification_views import NotificationView, TargetView
from api.planning_views import CustomerView, MissedWindowView, PlanView, WindowView
from api.schemas import JobView, NodeView, ServerView, SnapshotView
from api.views import Page, View
from managed.client import ApiProblem, ApiUnreachable, ManagedClient
from managed.domain.jobs import Job
from tests.integration.api.conftest import ApiBench
from tests.support.waiting import wait_until


def read_messages(live: ManagedClient, job: Job, headers: dict[str, str]) -> list[dict[str, str]]:
    """The raw fields of every message until the stream ends."""
    messages: list[dict[str, str]] = [{}]
    path = f"/v1/jobs/{job.job_id}/events"
    with live._http.stream("GET", path, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                messages[-1][name] = value
            elif messages[-1]:
                messages.append({})
    return [message for message in messages if "id" in message]


def test_stream_tells_all_and_ends_with_the_job(bench: ApiBench, live: ManagedClient) -> None:
    job = bench.add_job(bench.add_server())
    bench.add_events(job, *["step_started"] * 600)
    bench.end_job(job)
    messages = read_messages(live, job, {})
    seqs = [int(message["id"]) for message in messages]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) > 600
    assert messages[0]["event"] == "job_submitted"
    assert messages[-1]["event"] == "job_ended"


def test_stream_goes_on_after_the_last_event_id(bench: ApiBench, live: ManagedClient) -> None:
    job = bench.add_job(bench.add_server())
    bench.add_events(job, "one", "two", "three")
    bench.end_job(job)
    after_two = read_messages(live, job, {"Last-Event-ID": "3"})
    assert next(message["event"] for message in after_two) == "three"
    assert next(iter(live.events(job.job_id, after=3)))["seq"] == 4


def test_odd_last_event_id_is_refused(bench: ApiBench, live: ManagedClient) -> None:
    job = bench.add_job(bench.add_server())
    for odd in ("x", "-1", "9" * 40):
        answer = live._http.get(f"/v1/jobs/{job.job_id}/events", headers={"Last-Event-ID": odd})
        assert answer.status_code == 422


def test_events_arrive_while_the_job_runs(bench: ApiBench, live: ManagedClient) -> None:
    job = bench.add_job(bench.add_server())
    seen: list[dict[str, Any]] = []
    ended: list[dict[str, Any]] = []

    def follow() -> None:
        ended.append(live.wait_for_job(job.job_id, seen.append))

    reader = threading.Thread(target=follow)
    reader.start()
    wait_until(lambda: seen, timeout=5, what="the first event")
    bench.add_events(job, "playbook_output")
    wait_until(lambda: len(seen) == 2, timeout=5, what="the live event")
    assert seen[1]["type"] == "playbook_output"
    assert seen[1]["data"] == {"text": "line\u2028one"}
    assert seen[1]["at"]
    assert not ended
    bench.end_job(job)
    reader.join(10)
    assert ended[0]["status"] == "succeeded"
    assert seen[-1]["type"] == "job_ended"
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))


def test_many_followers_do_not_hold_the_api_up(bench: ApiBench, live: ManagedClient) -> None:
    job = bench.add_job(bench.add_server())
    counts: list[int] = []

    def follow() -> None:
        with ManagedClient(str(live._http.base_url), bench.token) as own:
            counts.append(len(list(own.events(job.job_id))))

    readers = [threading.Thread(target=follow) for _ in range(30)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        assert live.get("/v1/servers/shop")["name"] == "shop"
    bench.end_job(job)
    for reader in readers:
        reader.join(20)
    assert counts == [bench.installation.events.after(job.job_id, 0)[-1].seq] * 30


def test_json_page_of_events(bench: ApiBench, api: TestClient) -> None:
    job = bench.add_job(bench.add_server())
    path, accept = f"/v1/jobs/{job.job_id}/events", {"Accept": "application/json"}
    page = api.get(path, headers=accept).json()
    assert [event["type"] for event in page["items"]] == ["job_submitted"]
    assert page["is_complete"] is False
    bench.end_job(job)
    last = api.get(path, params={"after": 1}, headers=accept).json()
    assert last["items"][-1]["type"] == "job_ended"
    assert last["is_complete"] is True


def test_client_raises_problems_and_says_when_nobody_answers(
    bench: ApiBench, live: ManagedClient, unused_tcp_port: int
) -> None:
    with pytest.raises(ApiProblem) as refused:
        live.get("/v1/servers/nobody")
    assert (refused.value.status, refused.value.problem_code) == (404, "not-found")
    with pytest.raises(ApiProblem):
        list(live.events("00000000-0000-4000-8000-000000000000"))
    for name in ("a", "b", "c"):
        bench.add_server(name)
    assert [s["name"] for s in live.items("/v1/servers", limit=1)] == ["a", "b", "c"]
    nobody = ManagedClient(f"http://127.0.0.1:{unused_tcp_port}", "x")
    with nobody, pytest.raises(ApiUnreachable):
        nobody.get("/healthz")


def test_client_reads_on_after_a_broken_stream(
    bench: ApiBench, live: ManagedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stream breaks after two events; the client comes again and loses none."""
    job = bench.add_job(bench.add_server())
    bench.add_events(job, "one", "two", "three", "four")
    bench.end_job(job)
    whole = ManagedClient._stream

    @contextmanager
    def broken(client: ManagedClient, job_id: str, after: int) -> Iterator[Iterator[Any]]:
        def first_two(events: Iterator[Any]) -> Iterator[Any]:
            for number, event in enumerate(events):
                if number == 2:
                    raise httpx.ReadError("the connection broke")
                yield event

        with whole(client, job_id, after) as events:
            yield first_two(events)

    monkeypatch.setattr(ManagedClient, "_stream", broken)
    seqs = [event["seq"] for event in live.events(job.job_id)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= 6


# ---------------------------------------------------------------- OpenAPI


def test_every_operation_is_described_with_examples(bench: ApiBench) -> None:
    document = bench.app.openapi()
    known = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["tags"], where
            assert operation["description"], where
            assert operation["operationId"], where
            body = operation.get("requestBody")
            if body is None:
                continue
            content = body["content"]["application/json"]
            schema = content["schema"]
            name = str(schema.get("$ref", "")).rpartition("/")[2]
            assert content.get("examples") or known[name].get("examples"), where


def request_examples(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Method, path and body of every request that the document shows."""
    known = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "requestBody" not in operation:
                continue
            content = operation["requestBody"]["content"]["application/json"]
            shown = [example["value"] for example in content.get("examples", {}).values()]
            name = str(content["schema"].get("$ref", "")).rpartition("/")[2]
            for body in shown or known[name]["examples"]:
                yield method, path, body


def turn(path: str) -> int:
    """Whose windows, servers and tokens they are comes first. A node comes last: with two of them a
    server would have to name one.
    """
    return {"/v1/customers": 0, "/v1/plans": 0, "/v1/users": 0, "/v1/nodes": 2}.get(path, 1)


def test_every_request_that_is_shown_is_accepted(
    bench: ApiBench, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the document shows must work: no example is refused as senseless."""
    job = bench.add_job(bench.add_server("blog"))
    monkeypatch.setattr("managed.drivers.libvirt.registration._check_directory", lambda _: None)
    monkeypatch.setattr("managed.drivers.libvirt.registration._check_libvirt", lambda *_: None)
    elsewhere = ("/v1/requests/", "/v1/webhooks/")  # tests/integration/tickets
    examples = request_examples(bench.app.openapi())
    shown = [example for example in examples if not example[1].startswith(elsewhere)]
    assert len(shown) == 22
    refused = []
    for method, path, body in sorted(shown, key=lambda example: turn(example[1])):
        address = path.replace("{job_id}", job.job_id).replace("{server}", "blog")
        answer = api.request(method, address, json=body)
        if answer.status_code not in (200, 201, 202, 409):
            refused.append((method, path, body, answer.text))
    assert refused == []


def test_every_problem_is_documented_as_a_problem_document(bench: ApiBench) -> None:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    document = bench.app.openapi()
    checked = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert answer["content"] == {"application/problem+json": problem}, (
                        f"{method} {path} {status}"
                    )
                    checked += 1
    assert checked > 40


def test_every_answer_is_shown_by_a_full_example(bench: ApiBench) -> None:
    document = bench.app.openapi()
    answers = {
        content["schema"]["$ref"].rpartition("/")[2]
        for methods in document["paths"].values()
        for operation in methods.values()
        for answer in operation["responses"].values()
        for content in answer["content"].values()
        if "schema" in content
    }
    assert {"Problem", "JobDetailView", "EventsView", "Page_ServerView_"} <= answers
    for name in answers:
        assert document["components"]["schemas"][name]["examples"], name


def views_in(module: ModuleType) -> list[type[View]]:
    found = [kind for kind in vars(module).values() if isinstance(kind, type)]
    return [
        kind for kind in found if issubclass(kind, View) and "examples" in kind.model_json_schema()
    ]


def test_examples_of_answers_have_every_field_as_the_answer_would(bench: ApiBench) -> None:
    """Of the views themselves: FastAPI leaves nulls out of the document."""
    pages: list[type[View]] = [Page[JobView], Page[NodeView], Page[ServerView], Page[SnapshotView]]
    pages += [Page[CustomerView], Page[PlanView], Page[WindowView], Page[MissedWindowView]]
    pages += [Page[TargetView], Page[NotificationView]]
    modules = (schemas, planning_views, access_views, notification_views)
    views = [*(view for module in modules for view in views_in(module)), *pages]
    assert len(views) >= 30
    for view in views:
        for example in view.model_json_schema()["examples"]:
            assert view.model_validate(example).model_dump(mode="json") == example


def test_every_reference_leads_somewhere(bench: ApiBench) -> None:
    document = bench.app.openapi()
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"]
