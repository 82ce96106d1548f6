"""The command line against the real API: does it send what the API understands?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from managed.cli import REFUSED, run
from managed.client import ManagedClient
from managed.domain.windows import Opening
from managed.settings import settings
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench

Managed = Callable[..., Any]


@pytest.fixture
def managed(
    bench: ApiBench,
    live: ManagedClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Managed]:
    """`managed … --json` as somebody types it; gives the document that it prints."""
    monkeypatch.setenv("MANAGED_STATE_DIR", str(bench.installation.settings.state))
    monkeypatch.setenv("MANAGED_LISTEN_PORT", str(live._http.base_url.port))
    settings.cache_clear()

    def command(*arguments: str) -> Any:
        status = run([*arguments, "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out)

    yield command
    settings.cache_clear()


def test_jobs_of_one_server_are_listed_without_those_of_another(
    bench: ApiBench, managed: Managed
) -> None:
    of_shop, of_blog = (bench.add_job(bench.add_server(name)) for name in ("shop", "blog"))

    def listed(*options: str) -> list[str]:
        return [job["id"] for job in managed("jobs", "list", *options)["items"]]

    assert listed("--server", "shop") == [of_shop.job_id]
    assert listed("--server", of_blog.server_id) == [of_blog.job_id]
    assert listed("--server", "blog", "--kind", "backup") == []
    assert listed() == [of_blog.job_id, of_shop.job_id]


def test_servers_are_searched_by_how_they_begin(bench: ApiBench, managed: Managed) -> None:
    for name in ("shop", "shop-2", "blog"):
        bench.add_server(name)

    def found(*options: str) -> list[str]:
        return [server["name"] for server in managed("servers", "list", *options)["items"]]

    assert found("--search", "SHO") == ["shop", "shop-2"]
    assert found("--search", "hop") == []
    assert found() == ["blog", "shop", "shop-2"]


def test_a_server_is_created_on_the_node_that_was_named(bench: ApiBench, managed: Managed) -> None:
    bench.add_node()
    second = bench.add_node("second")
    for name, reference in (("shop", "second"), ("blog", second.node_id)):
        made = managed("servers", "create", name, "--node", reference, "--forward", "80")
        assert made["server"]["node_id"] == second.node_id


def test_a_server_is_deleted_with_json_only_by_yes_and_once_per_key(
    bench: ApiBench, managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    server = bench.add_server()
    assert run(["servers", "delete", "shop", "--json"]) == REFUSED
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--yes" in json.loads(printed.err)["error"]["hint"]
    assert bench.installation.queue.find() == []
    first, second = (
        managed("servers", "delete", "shop", "--yes", "--idempotency-key", "one") for _ in range(2)
    )
    assert first["id"] == second["id"]
    assert first["server_id"] == server.server_id


def test_an_open_rescue_session_is_shown(
    bench: ApiBench, managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.open_session(bench.add_server())
    assert run(["servers", "show", "shop"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rescue open until 2100-01-01" in said
    assert "host key ssh-ed25519 AAAA" in said


def test_windows_and_the_pause_are_set_and_shown(
    bench: ApiBench, managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    server = bench.add_server()
    anna = managed("customers", "add", "Anna Shop Ltd", "anna@example.org")
    assert managed("customers", "list")["items"] == [anna]
    managed("plans", "add", "plus", "--only-security")
    (plan,) = managed("plans", "list")["items"]
    placed = managed("servers", "place", "shop", "--customer", anna["name"], "--plan", "plus")
    assert (placed["customer_id"], placed["plan_id"]) == (anna["id"], plan["id"])

    rule = ("FREQ=DAILY;BYHOUR=2", "--zone", "Europe/Berlin", "--minutes", "180")
    window = managed("windows", "add", "plan", "plus", "patch", *rule)
    assert managed("windows", "list")["items"] == [window]
    assert managed("windows", "missed", "--server", "shop")["items"] == []
    opening = Opening(utc_now(), utc_now() + timedelta(hours=1))
    bench.add_survey(server, opening)
    (survey,) = managed("windows", "surveys", "--server", "shop")["items"]
    assert survey["outcome"] == "nothing-to-do"
    assert managed("windows", "surveys", "--outcome", "work")["items"] == []
    later = Opening(utc_now() + timedelta(days=1), utc_now() + timedelta(days=1, hours=1))
    second = bench.add_survey(server, later)
    newest = managed("windows", "surveys", "--limit", "1")
    (one,) = newest["items"]
    assert datetime.fromisoformat(one["starts_at"]) == second.opening.starts_at
    assert newest["next"]
    since = second.opening.starts_at.isoformat()
    assert managed("windows", "surveys", "--since", since)["items"] == newest["items"]
    assert run(["windows", "surveys"]) == 0
    assert "nothing-to-do" in capsys.readouterr().out
    assert managed("windows", "remove", window["id"]) == window

    begun = managed("pause", "begin", "a bad kernel")
    assert managed("pause", "show") == {"pause": begun}
    assert run(["pause", "show"]) == 0
    assert "a bad kernel" in capsys.readouterr().out
    assert run(["jobs", "submit", "shop", "backup"]) == REFUSED
    assert "managed pause end" in capsys.readouterr().err
    assert managed("pause", "end") == {"pause": None}
