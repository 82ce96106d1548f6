"""What people read in a terminal of the usual width: names, and ids that can be taken whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from managed.cli import run
from managed.client import ManagedClient
from managed.domain.jobs import Job, JobStatus
from managed.domain.jobs import JobKind as Kind
from managed.domain.servers import Server
from managed.domain.windows import Opening
from managed.settings import settings
from managed.storage.windows import MissedWindow
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench

Said = Callable[..., str]
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RULE = "FREQ=MONTHLY;BYDAY=1SU;BYHOUR=2;BYMINUTE=30"


@pytest.fixture
def said(
    at_command_line: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """What `managed …` prints in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def command(*words: str) -> str:
        status = run(list(words))
        printed = capsys.readouterr()
        assert status == 0, printed.err
        lines = [line.rstrip() for line in printed.out.splitlines()]
        assert [line for line in lines if len(line) > 80] == []
        return "\n".join([*lines, ""])

    return command


@pytest.fixture
def shop(bench: ApiBench, live: ManagedClient) -> Server:
    """A server of Anna's, on a plan with a window for patches; its own one is for backups."""
    shop = bench.add_server()
    live.post("/v1/customers", {"name": "Anna Shop Ltd", "email": "anna@example.org"})
    live.post("/v1/plans", {"name": "plus"})
    live.put("/v1/servers/shop/placement", {"customer": "Anna Shop Ltd", "plan": "plus"})
    for owner, name, kind in (
        ("plan", "plus", "patch"),
        ("plan", "plus", "backup"),
        ("server", "shop", "backup"),
    ):
        window = {"owner": owner, "owner_id": name, "job_kind": kind, "rule": RULE}
        live.post("/v1/windows", {**window, "zone": "Europe/Berlin", "minutes": 180})
    return shop


@pytest.fixture
def job(bench: ApiBench, shop: Server) -> Job:
    job = bench.add_job(shop, Kind.RESTORE_FILES)
    bench.end_job(job, JobStatus.FAILED)
    return job


def test_jobs(said: Said, job: Job) -> None:
    text = said("jobs", "list")
    assert "restore-files on shop\n" in re.sub(r" +failed.*", "", text)
    assert UUID.findall(text) == [job.job_id]
    assert "by a test" in text


def test_windows(said: Said, live: ManagedClient, shop: Server) -> None:
    text = said("windows", "list")
    assert UUID.findall(text) == [one["id"] for one in live.items("/v1/windows")]
    for words in ("patch, of plan plus", "in Europe/Berlin, for 180 minutes", "next 20", RULE[:20]):
        assert words in text
    assert text.count("backup, of server shop") == 1


def test_missed_windows_and_surveys(said: Said, bench: ApiBench, shop: Server) -> None:
    opening = Opening(utc_now() - timedelta(hours=3), utc_now() - timedelta(hours=2))
    reason = "the server was busy with the job of somebody else, and that took until the end"
    missed = MissedWindow(shop.server_id, Kind.PATCH, opening, reason, utc_now())
    bench.installation.windows.record_missed([missed])
    bench.add_survey(shop, Opening(utc_now(), utc_now() + timedelta(hours=1)))
    for command in ("missed", "surveys"):
        text = said("windows", command)
        assert " shop " in text
        assert UUID.findall(text) == []
    assert "somebody" in said("windows", "missed")


def test_requests(said: Said, live: ManagedClient, bench: ApiBench, shop: Server) -> None:
    request_id = bench.add_request(shop)
    text = said("requests", "list")
    assert UUID.findall(text) == [request_id]
    assert "by anna@example.org" in text
    assert "open" in text
    shown = said("requests", "show", request_id)
    assert re.search(r"^server +shop$", shown, re.MULTILINE)
    assert UUID.findall(shown) == [request_id]


def test_rescue_sessions(said: Said, bench: ApiBench, shop: Server) -> None:
    session = bench.open_session(shop)
    text = said("rescues", "list")
    assert text.splitlines()[1].startswith("shop ")
    assert "until 2100-01-01" in text
    assert UUID.findall(text) == [session.session_id]


def test_users(said: Said, live: ManagedClient, shop: Server) -> None:
    user = {"email": "anna@example.org", "name": "Anna", "role": "customer"}
    live.post("/v1/users", {**user, "customer": "Anna Shop Ltd"})
    text = said("users", "list")
    assert re.search(r"anna@example\.org +Anna +customer +Anna Shop Ltd", text)
    assert UUID.findall(text) == []


def test_a_server(said: Said, live: ManagedClient, shop: Server) -> None:
    text = said("servers", "show", "shop")
    assert re.search(r"^customer +Anna Shop Ltd$", text, re.MULTILINE)
    assert re.search(r"^plan +plus$", text, re.MULTILINE)
    flat = " ".join(text.split())
    span = "in Europe/Berlin, for 180 minutes, next 20"
    assert f"backup: {RULE}, of the server {span}" in flat
    assert f"patch: {RULE}, of the plan {span}" in flat
    assert re.search(r"^node +local$", text, re.MULTILINE)
    for one in live.items("/v1/windows"):
        live.delete(f"/v1/windows/{one['id']}")
    assert "nothing starts by itself" in said("servers", "show", "shop")


def test_the_windows_that_count_for_a_server(live: ManagedClient, shop: Server) -> None:
    for reference in ("shop", shop.server_id):
        found = [(w["owner"], w["job_kind"]) for w in live.items("/v1/windows", server=reference)]
        assert sorted(found) == [("plan", "patch"), ("server", "backup")]


def test_a_server_for_which_no_window_counts_is_told_why(
    said: Said, live: ManagedClient, shop: Server
) -> None:
    customer = live.get("/v1/customers/Anna Shop Ltd")["id"]
    window = {"owner": "customer", "owner_id": customer, "job_kind": "patch", "rule": RULE}
    live.post("/v1/windows", window)
    live.put("/v1/servers/shop/placement", {"customer": "Anna Shop Ltd", "plan": None})
    found = {w["owner"]: w for w in live.items("/v1/windows", server="shop")}
    assert set(found) == {"customer", "server"}
    for one in found.values():
        assert one["next_opening"] is None
        assert one["limitation"] == "the server is on no plan"
    assert "does not open: the server is on no plan" in " ".join(
        said("servers", "show", "shop").split()
    )


def test_what_a_customer_may_not_look_up_keeps_its_id(
    said: Said, live: ManagedClient, shop: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = {"email": "anna@example.org", "name": "Anna", "role": "customer"}
    live.post("/v1/users", {**user, "customer": "Anna Shop Ltd"})
    token = live.post("/v1/tokens", {"user": "anna@example.org", "name": "laptop"})["token"]
    monkeypatch.setenv("MANAGED_TOKEN", token)
    settings.cache_clear()
    assert "of the plan" in said("servers", "show", "shop")
    assert "of server shop" in said("windows", "list")
    narrow = {"user": "anna@example.org", "name": "narrow", "scopes": ["servers:read"]}
    monkeypatch.setenv("MANAGED_TOKEN", live.post("/v1/tokens", narrow)["token"])
    settings.cache_clear()
    assert "not for this token to see" in said("servers", "show", "shop")


def test_the_audit_log_names_what_it_tells_of(said: Said, live: ManagedClient, job: Job) -> None:
    live.post("/v1/servers/shop/jobs", {"kind": "check"})
    text = said("audit", "list", "--action", "submit_job")
    assert " shop" in text
    assert UUID.findall(text) == []


def test_many_servers_are_named_by_few_questions(said: Said, bench: ApiBench) -> None:
    opening = Opening(utc_now() - timedelta(hours=3), utc_now() - timedelta(hours=2))
    servers = [bench.add_server(f"web-{number}") for number in range(60)]
    bench.installation.windows.record_missed(
        [MissedWindow(one.server_id, Kind.PATCH, opening, "off", utc_now()) for one in servers]
    )
    text = said("windows", "missed")
    assert all(re.search(rf" {one.name} ", text) for one in servers)
