"""The command line against the real API: does it send what the API understands?"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from typer.main import get_command

from managed.cli import REFUSED, app, run
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.windows import Opening
from managed.storage.windows import MissedWindow
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.unit.cli.test_command_line import commands as every_command

Managed = Callable[..., Any]


@pytest.fixture
def managed(at_command_line: None, capsys: pytest.CaptureFixture[str]) -> Managed:
    """`managed … --json` as somebody types it; gives the document that it prints."""

    def command(*arguments: str) -> Any:
        status = run([*arguments, "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out)

    return command


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


def test_a_filter_that_no_server_passes_does_not_say_that_there_are_none(
    bench: ApiBench, managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*options: str) -> str:
        assert run(["servers", "list", *options]) == 0
        return capsys.readouterr().out

    assert "no servers yet" in said()
    bench.add_server()
    assert said("--search", "x") == said("--status", "rescue") == "No server is like that.\n"


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
    starts_at = datetime.fromisoformat(window["next_opening"]["starts_at"])
    assert run(["windows", "change", window["id"], "--minutes", "240"]) == 0
    assert f"It opens {starts_at:%Y-%m-%d %H:%M:%S} UTC." in capsys.readouterr().out
    assert managed("windows", "remove", window["id"])["minutes"] == 240

    begun = managed("pause", "begin", "a bad kernel")
    assert managed("pause", "show") == {"pause": begun}
    assert run(["pause", "show"]) == 0
    assert "a bad kernel" in capsys.readouterr().out
    assert run(["jobs", "submit", "shop", "backup"]) == REFUSED
    assert "managed pause end" in capsys.readouterr().err
    assert managed("pause", "end") == {"pause": None}


def test_a_window_that_counts_for_nobody_says_so(
    managed: Managed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    managed("plans", "add", "bare", "--unmanaged")
    assert run(["windows", "add", "plan", "bare", "patch", "FREQ=DAILY;BYHOUR=2"]) == 0
    said = "It is kept, but does not open: the plan is unmanaged.\n"
    assert capsys.readouterr().out == said
    assert run(["windows", "list"]) == 0
    assert "does not open: the plan is unmanaged" in capsys.readouterr().out


# Lists of the API, and the command that shows each.
LISTS: Final = {
    "/v1/servers": "servers list",
    "/v1/servers/{server}/snapshots": "snapshots list",
    "/v1/servers/{server}/snapshots/{snapshot_id}/paths": "snapshots paths",
    "/v1/rescue-sessions": "rescues list",
    "/v1/jobs": "jobs list",
    "/v1/requests": "requests list",
    "/v1/customers": "customers list",
    "/v1/plans": "plans list",
    "/v1/windows": "windows list",
    "/v1/missed-windows": "windows missed",
    "/v1/surveys": "windows surveys",
    "/v1/nodes": "nodes list",
    "/v1/users": "users list",
    "/v1/tokens": "tokens list",
    "/v1/notification-targets": "notifications targets",
    "/v1/notifications": "notifications list",
    "/v1/audit": "audit list",
}
# What the command line calls otherwise; it names a server where the API takes a subject's id.
OTHERWISE: Final = {"server_id": "server", "subject": "server", "open": "all"}
# These lists grow without end: a page at a time is shown. Of the others all is. What tells one item
# from another.
PAGED: Final = {
    "audit list": "number",
    "jobs list": "id",
    "notifications list": "id",
    "requests list": "id",
    "tokens list": "id",
    "windows surveys": "starts_at",
}


def test_every_list_and_filter_of_the_api_is_on_the_command_line(bench: ApiBench) -> None:
    listed = {
        path: {one["name"] for one in methods["get"]["parameters"] if one["in"] == "query"}
        for path, methods in bench.app.openapi()["paths"].items()
        if any(one["name"] == "cursor" for one in methods.get("get", {}).get("parameters", ()))
    }
    assert set(listed) == set(LISTS)
    commands = {" ".join(path): command for path, command in every_command(get_command(app))}
    for path, filters in listed.items():
        name = LISTS[path]
        texts = [text for one in commands[name].params for text in (*one.opts, one.name)]
        options = {text.removeprefix("--").replace("-", "_") for text in texts}
        wanted = filters if name in PAGED else filters - {"limit", "cursor"}
        missing = {one for one in wanted if OTHERWISE.get(one, one) not in options}
        assert missing == set(), name


def test_who_has_seen_a_page_is_told_how_to_go_on(
    bench: ApiBench, api: TestClient, managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    kim = managed("users", "add", "kim@example.org", "Kim", "support")
    target = {"kind": "webhook", "address": "https://hooks.invalid/managed"}
    assert api.post("/v1/notification-targets", json=target).status_code == 201
    server = bench.add_server()
    for number in range(3):
        bench.end_job(bench.add_job(server), JobStatus.FAILED)
        bench.add_request(server)
        managed("tokens", "make", kim["email"], f"laptop {number}")
        opens = utc_now() - timedelta(hours=number)
        bench.add_survey(server, Opening(opens, opens + timedelta(hours=1)))
    for name, key in PAGED.items():
        command = [*name.split(), *([kim["email"]] if name == "tokens list" else [])]
        whole = [one[key] for one in managed(*command)["items"]]
        assert len(whole) >= 3, name
        seen: list[Any] = []
        cursor: list[str] = []
        while True:
            page = managed(*command, "--limit", "2", *cursor)
            seen += [one[key] for one in page["items"]]
            assert run([*command, "--limit", "2", *cursor]) == 0
            said = capsys.readouterr().err
            if page["next"] is None:
                assert "more" not in said
                break
            assert said.endswith(f"more: --cursor {page['next']}\n")
            cursor = ["--cursor", page["next"]]
        assert seen == whole, name


def test_lists_are_narrowed(bench: ApiBench, managed: Managed) -> None:
    server = bench.add_server()
    old = bench.add_job(server)
    bench.end_job(old)
    middle = utc_now().isoformat()
    new = bench.add_job(server)
    opening = Opening(utc_now() - timedelta(hours=2), utc_now() - timedelta(hours=1))
    missed = MissedWindow(server.server_id, JobKind.PATCH, opening, "it was off", utc_now())
    bench.installation.windows.record_missed([missed])
    blog = bench.add_server("blog")
    for is_verified in (True, False):
        bench.add_snapshot(blog, utc_now(), verified=is_verified)
    anna = managed("customers", "add", "Anna", "anna@example.org")
    plan = managed("plans", "add", "plus")
    managed("users", "add", "kim@example.org", "Kim", "support")
    later = (utc_now() + timedelta(hours=1)).isoformat()

    def found(*words: str) -> int:
        return len(managed(*words)["items"])

    def ids(*words: str) -> list[str]:
        return [job["id"] for job in managed("jobs", "list", "--server", "shop", *words)["items"]]

    assert ids("--until", middle) == [old.job_id]
    assert ids("--since", middle, "--requested-by", "a test") == [new.job_id]
    assert ids("--requested-by", "nobody") == []
    (entry,) = managed("audit", "list", "--action", "add_user")["items"]
    assert found("audit", "list", "--actor", entry["actor"], "--since", middle) == 3
    assert found("audit", "list", "--actor", "nobody") == 0
    assert found("audit", "list", "--since", later) == 0
    assert found("snapshots", "list", "blog", "--verified") == 1
    assert found("snapshots", "list", "blog", "--unverified") == 1
    assert found("snapshots", "list", "blog") == 2
    assert found("windows", "missed", "--kind", "patch", "--since", middle) == 1
    assert found("windows", "missed", "--kind", "backup") == 0
    assert found("windows", "missed", "--since", later) == 0
    assert found("users", "list", "--role", "support") == 1
    assert found("users", "list", "--role", "admin") == 0
    assert found("plans", "list", "--kind", "unmanaged") == 0
    assert found("customers", "list", "--email", "bea@example.org") == 0
    managed("windows", "add", "plan", "plus", "patch", "FREQ=DAILY")
    assert found("windows", "list", "--owner", "plan", "--owner-id", plan["id"]) == 1
    assert found("windows", "list", "--kind", "backup") == 0
    assert found("notifications", "targets", "--customer", "Anna") == 0
    assert managed("customers", "show", "Anna") == anna
    assert managed("plans", "show", plan["id"]) == plan


def test_a_customer_and_a_plan_are_shown(
    managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    managed("customers", "add", "Anna", "anna@example.org")
    managed("plans", "add", "plus", "--only-security")
    assert run(["customers", "show", "Anna"]) == run(["plans", "show", "plus"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "email anna@example.org" in said
    assert "only_security True" in said
    assert run(["plans", "show", "none"]) == REFUSED
