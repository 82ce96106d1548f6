"""The panel's pages: what stands on them, for whom, and that nothing there is markup of others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from fastapi.testclient import TestClient

from api.auth import permission_of
from api.panel.pages import moment_words
from api.panel.route import OpenPageRoute, PageRoute
from managed.domain.access import Permission, Role
from managed.domain.customers import Plan, PlanKind
from managed.domain.jobs import Job, JobKind
from managed.domain.servers import Server
from managed.domain.surveys import Finding, Survey, SurveyOutcome
from managed.domain.windows import Opening
from managed.storage.database import writing
from managed.storage.windows import MissedWindow
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench
from tests.support.nights import (
    HOSTILE,
    Worker,
    asked_by_ticket,
    failed_job,
    patched,
    work_on,
)
from tests.support.panel import Browser, add_customer, add_user, browser, hidden

P = Permission

# What each page asks for; None: whoever is signed in, "open": nobody has to be.
PAGES: Final[dict[tuple[str, str], Permission | str | None]] = {
    ("GET", "/panel/static/{name}"): "open",
    ("GET", "/panel/sign-in"): "open",
    ("POST", "/panel/sign-in"): "open",
    ("GET", "/panel/invitation/{token}"): "open",
    ("POST", "/panel/invitation/{token}"): "open",
    ("GET", "/panel/{path:path}"): "open",
    ("GET", "/panel"): None,
    ("POST", "/panel/sign-out"): None,
    ("GET", "/panel/tonight"): P.JOBS_READ,
    ("GET", "/panel/servers"): P.SERVERS_READ,
    ("GET", "/panel/servers/{server}"): P.SERVERS_READ,
    ("GET", "/panel/servers/{server}/ask/{action}"): P.JOBS_ASK,
    ("POST", "/panel/servers/{server}/jobs"): P.JOBS_ASK,
    ("GET", "/panel/jobs/{job_id}"): P.JOBS_READ,
    ("GET", "/panel/jobs/{job_id}/events"): P.JOBS_READ,
    ("GET", "/panel/requests/{request_id}"): P.REQUESTS_READ,
    ("POST", "/panel/requests/{request_id}/approve"): P.REQUESTS_DECIDE,
    ("POST", "/panel/requests/{request_id}/refuse"): P.REQUESTS_DECIDE,
}
OF_STAFF: Final = (P.REQUESTS_READ, P.REQUESTS_DECIDE)
OF_SERVER: Final = ("{server}", "{job_id}")


@dataclass(frozen=True)
class Night:
    """Anna's server with a failed job, and Bea's; somebody of every kind is signed in."""

    bench: ApiBench
    annas: Server
    beas: Server
    failed: Job
    asked: str
    people: dict[str, Browser]

    @property
    def support(self) -> Browser:
        return self.people["support"]


@pytest.fixture
def night(bench: ApiBench) -> Iterator[Night]:
    installation = bench.installation
    annas, beas = bench.add_server("annas"), bench.add_server("beas")
    customers = {
        name: add_customer(installation, name, server)
        for name, server in (("Anna", annas), ("Bea", beas))
    }
    failed = failed_job(installation, annas, "the disk is full")
    asked = asked_by_ticket(installation, 4710, "it does not boot", annas)
    with (
        browser(bench.app) as support,
        browser(bench.app) as admin,
        browser(bench.app) as anna,
        browser(bench.app) as bea,
    ):
        people = {"support": support, "admin": admin, "anna": anna, "bea": bea}
        support.sign_in(add_user(installation, "Kim"))
        admin.sign_in(add_user(installation, "Joe", Role.ADMIN))
        for name in ("Anna", "Bea"):
            customer_id = customers[name].customer_id
            user = add_user(installation, f"{name}s-user", Role.CUSTOMER, customer_id)
            people[name.lower()].sign_in(user)
        yield Night(bench, annas, beas, failed, asked, people)


def asked(bench: ApiBench) -> dict[tuple[str, str], Permission | str | None]:
    """What the panel's routes say of themselves."""
    routers = [getattr(route, "original_router", None) for route in bench.app.routes]
    routes = [route for router in routers if router is not None for route in router.routes]
    return {
        (method, route.path): permission_of(route.dependencies, route.path)
        if isinstance(route, PageRoute)
        else "open"
        for route in routes
        if isinstance(route, OpenPageRoute)
        for method in route.methods
    }


def ask(night: Night, who: Browser, route: tuple[str, str]) -> int:
    method, path = route
    path = path_of(night, path)
    if method == "GET":
        return who.get(path).status_code
    action = "rescue" if "/requests/" in path else "check"
    fields = {"csrf": who.csrf(), "action": action, "key": "one", "reason": "a test"}
    return who.post(path, fields).status_code


def path_of(night: Night, path: str) -> str:
    return path.format(
        server="annas",
        action="check",
        job_id=night.failed.job_id,
        request_id=night.asked,
        name="none",
        token="none",
    )


def test_every_page_is_in_the_matrix_with_what_it_asks_for(bench: ApiBench) -> None:
    assert asked(bench) == PAGES
    panel = [path for path in bench.app.openapi()["paths"] if path.startswith("/panel")]
    assert panel == []


def test_who_is_not_signed_in_sees_no_page(night: Night) -> None:
    with browser(night.bench.app) as stranger:
        for (method, path), permission in PAGES.items():
            if permission == "open":
                continue
            path = path_of(night, path)
            answer = stranger.get(path) if method == "GET" else stranger.post(path, {"csrf": "x"})
            assert answer.status_code == 303, path
            assert answer.headers["Location"].startswith("/panel/sign-in"), path


@pytest.mark.parametrize("name", ["support", "admin", "anna", "bea"])
def test_every_page_lets_in_whom_it_should_and_nobody_else(night: Night, name: str) -> None:
    wrong = []
    for route, permission in PAGES.items():
        if permission == "open" or route == ("POST", "/panel/sign-out"):
            continue
        status = ask(night, night.people[name], route)
        # A job of another page may be at work on the server: who reads that was let in.
        allowed = [200, 303, 409]
        if name == "bea" and any(part in route[1] for part in OF_SERVER):
            allowed = [404]
        if name in ("anna", "bea") and permission in OF_STAFF:
            allowed = [403]
        if status not in allowed:
            wrong.append((*route, status))
    assert wrong == []


def test_customers_land_on_their_servers_and_see_no_others(night: Night) -> None:
    anna = night.people["anna"]
    for path in ("/panel", "/panel/tonight"):
        assert anna.get(path).headers["Location"] == "/panel/servers"
    page = anna.get("/panel/servers").text
    assert "annas" in page
    assert "beas" not in page
    assert "Tonight" not in page
    assert "beas" not in anna.get("/panel/servers?search=bea").text.replace('"bea"', "")
    others = work_on(night.bench.installation, night.beas, JobKind.CHECK)
    for path in ("", "/events"):
        assert anna.get(f"/panel/jobs/{others.job.job_id}{path}").status_code == 404


def test_tonight_shows_what_failed_first_and_counts_what_is_done(night: Night) -> None:
    installation = night.bench.installation
    check = work_on(installation, night.beas, JobKind.CHECK)
    check.finish()
    patch = work_on(installation, night.beas, JobKind.PATCH)
    patch.begin("update")
    patch.say("patch_progress", percent=42)
    opening = Opening(utc_now() - timedelta(hours=2), utc_now() - timedelta(hours=1))
    missed = MissedWindow(
        night.annas.server_id, JobKind.PATCH, opening, "the server was busy", utc_now()
    )
    long_ago = Opening(utc_now() - timedelta(hours=27), utc_now() - timedelta(hours=25))
    installation.windows.record_missed([missed, replace(missed, opening=long_ago)])
    night.bench.add_survey(night.annas, Opening(utc_now(), utc_now() + timedelta(hours=1)))
    page = night.support.get("/panel/tonight").text
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    wanted = (
        "1 failed 1 missed 1 waiting",
        "1 under way 1 done",
        "annas backup, in the step take snapshot",
        "A command failed: the disk is full",
        "annas patch",
        "the server was busy",
        "running beas patch, at update since",
        "patch 42 %",
        "1 check",
        "1 time a server had nothing to patch when its window opened",
    )
    assert [part for part in wanted if part not in text] == []
    assert [text.index(part) for part in wanted[2:]] == sorted(text.index(p) for p in wanted[2:])
    for job in (night.failed, patch.job):
        assert f'href="/panel/jobs/{job.job_id}"' in page
        assert f'href="/panel/servers/{job.server_id}"' in page


def test_requests_that_wait_stand_before_what_runs_until_they_are_decided(
    night: Night, api: TestClient
) -> None:
    installation = night.bench.installation
    api.post(f"/v1/requests/{night.asked}/refuse", json={"reason": "it was a test"})
    first = asked_by_ticket(installation, 4711, "it does not boot", night.annas)
    asked_by_ticket(installation, 4712, HOSTILE)
    work_on(installation, night.beas, JobKind.CHECK)
    page = night.support.get("/panel/tonight").text
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    wanted = (
        "2 waiting 1 under way",
        "server not known ticket 4712: &lt;script&gt;",
        "annas ticket 4711: it does not boot",
        "Proposes rescue: the text says that it does not boot",
        "running beas check",
    )
    assert [part for part in wanted if part not in text] == []
    assert text.index(wanted[3]) < text.index(wanted[4])
    assert f'href="/panel/requests/{first}"' in page
    refused = api.post(f"/v1/requests/{first}/refuse", json={"reason": "it boots"})
    assert refused.status_code == 200, refused.text
    page = night.support.get("/panel/tonight").text
    assert "ticket 4711" not in page
    assert "ticket 4712" in page


def test_a_quiet_night_says_so(bench: ApiBench) -> None:
    with browser(bench.app) as kim:
        kim.sign_in(add_user(bench.installation, "Kim"))
        page = kim.get("/panel/tonight").text
    assert "Nothing failed tonight." in page
    assert "No job is under way." in page
    assert "No ticket waits for a decision." in page


def test_what_is_longer_ago_than_a_day_is_not_tonights(night: Night) -> None:
    with writing(night.bench.installation.database) as connection:
        connection.exec_driver_sql(
            "UPDATE jobs SET finished_at = ? WHERE id = ?",
            ("2026-01-01 00:00:00.000000", night.failed.job_id),
        )
    assert "Nothing failed tonight." in night.support.get("/panel/tonight").text


def test_tonight_answers_nothing_while_nothing_is_new(night: Night) -> None:
    page = night.support.get("/panel/tonight").text
    again = re.search(r'hx-get="(/panel/tonight\?seen=[0-9a-f]+)"', page)
    assert again is not None
    assert night.support.get(again[1]).status_code == 204
    failed_job(night.bench.installation, night.beas, "another failure")
    part = night.support.get(again[1])
    assert part.status_code == 200
    assert part.text.startswith('<div id="tonight"')
    assert "another failure" in part.text
    assert "<html" not in part.text


def test_a_pause_stands_above_all(night: Night, api: TestClient) -> None:
    api.post("/v1/pause", json={"reason": "a bad kernel"})
    page = night.support.get("/panel/tonight").text
    assert "Everything is paused" in page
    assert "a bad kernel" in page


def test_texts_of_servers_are_text_everywhere(night: Night) -> None:
    installation = night.bench.installation
    failed_job(installation, night.annas, HOSTILE)
    worker = work_on(installation, night.beas, JobKind.PATCH)
    worker.record("check_before", {HOSTILE: [HOSTILE]}, [HOSTILE])
    worker.begin(HOSTILE[:60])
    worker.say("playbook_output", text=HOSTILE)
    worker.say("playbook_task", task=HOSTILE)
    worker.say("warning", message=f"\x1b[31m{HOSTILE}\u2028\r\nid: 99\r\n\r\n")
    with writing(installation.database) as connection:
        connection.exec_driver_sql(
            "UPDATE servers SET name = ? || id, address = ?", (HOSTILE, HOSTILE)
        )
    worker.finish()
    opening = Opening(utc_now(), utc_now() + timedelta(hours=1))
    said = Finding(SurveyOutcome.WORK, f"hostile survey {HOSTILE}", {HOSTILE: HOSTILE})
    installation.surveys.record(
        [Survey(night.beas.server_id, JobKind.PATCH, opening, utc_now(), said)]
    )
    assert "hostile survey" in night.support.get(f"/panel/servers/{night.beas.server_id}").text
    job = f"/panel/jobs/{worker.job.job_id}"
    pages = ("/panel/tonight", "/panel/servers", f"/panel/servers/{night.beas.server_id}", job)
    pages += (f"/panel/servers/{night.annas.server_id}", f"/panel/servers?search={HOSTILE[:30]}")
    pages += (f"/panel/requests/{asked_by_ticket(installation, 4714, HOSTILE)}",)
    for path in (*pages, f"{job}/events", "/panel/servers/none/ask/check"):
        text = night.support.get(path).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path
        assert ">49" not in text, path
    for path in pages:
        assert "&lt;script&gt;alert" in night.support.get(path).text, path
    stream = night.support.get(f"{job}/events").text
    assert stream.isascii()
    assert "\nid: 99" not in stream
    assert "\x1b" not in stream


def test_the_log_goes_on_after_the_last_line_and_ends_with_the_job(night: Night) -> None:
    worker = work_on(night.bench.installation, night.beas, JobKind.CHECK)
    for number in range(3):
        worker.say("playbook_output", text=f"line {number}")
    worker.finish()
    path = f"/panel/jobs/{worker.job.job_id}/events"
    whole = night.support.get(path).text
    ids = re.findall(r"^id: (\d+)", whole, re.MULTILINE)
    assert ids == [str(number) for number in range(1, len(ids) + 1)]
    assert whole.count("event: end") == 1
    rest = night.support.get(f"{path}?after=1", **{"Last-Event-ID": ids[-2]}).text
    assert re.findall(r"^id: (\d+)", rest, re.MULTILINE) == [ids[-1]]
    over = night.support.get(path, **{"Last-Event-ID": ids[-1]}).text
    assert "event: line" not in over
    assert "event: end" in over
    page = night.support.get(path.removesuffix("/events")).text
    assert "sse-connect" not in page
    assert re.findall(r'id="event-(\d+)"', page) == ids


def test_the_servers_page_shows_its_evidence(night: Night, api: TestClient) -> None:
    bench = night.bench
    patched(bench.installation, night.annas)
    bench.add_snapshot(night.annas, datetime(2026, 11, 24, 1, tzinfo=UTC), verified=True)
    bench.add_snapshot(night.annas, datetime(2026, 11, 25, 1, tzinfo=UTC), verified=False)
    window = {
        "owner": "server",
        "owner_id": "annas",
        "job_kind": "patch",
        "rule": "FREQ=DAILY;BYHOUR=2",
    }
    assert api.post("/v1/windows", json=window).status_code == 201
    page = night.support.get("/panel/servers/annas").text
    assert "Nothing starts by itself: the server is on no plan." in page
    assert "FREQ=DAILY" not in page
    api.post("/v1/plans", json={"name": "plus"})
    api.put("/v1/servers/annas/placement", json={"customer": "Anna", "plan": "plus"})
    opens = datetime(2026, 11, 25, 2, tzinfo=UTC)
    bench.add_survey(night.annas, Opening(opens, opens + timedelta(hours=2)))
    page = night.support.get("/panel/servers/annas").text
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    for part in (
        "Customer Anna",
        "FREQ=DAILY;BYHOUR=2 in UTC, of the server",
        "patch next",
        "backup nothing starts by itself",
        "Wed 25 Nov 2026 01:00 UTC ✕ not verified nothing is restored from it",
        "Tue 24 Nov 2026 01:00 UTC ✓ verified",
        "4 packages changed",
        "came new 1",
        "gone 1 removed",
        "linux 6.1.0-41 6.1.0-42",
        "Kernel 6.1.0-41-amd64 → 6.1.0-42-amd64",
        "Reboot yes: a new kernel",
        "Health before ✕ not well unit old.service has failed",
        "Health after ✓ well",
        f"✓ nothing-to-do The survey of {moment_words(opens, utc_now())} said: everything is up to"
        " date",
    ):
        assert part in text, part
    assert "vim 2" not in text


def test_a_rescue_session_stands_on_the_servers_page(night: Night) -> None:
    night.bench.open_session(night.annas)
    page = night.support.get("/panel/servers/annas").text
    assert "A rescue session is open" in page
    assert "not now: annas is in a rescue session" in page


def test_work_is_asked_for_once_with_its_reason_in_the_audit_log(
    night: Night, api: TestClient
) -> None:
    kim = night.support
    form = kim.get("/panel/servers/annas/ask/reset").text
    assert "lost" in form
    fields = {name: hidden(form, name) for name in ("csrf", "action", "key")}
    path = f"/panel/servers/{night.annas.server_id}/jobs"
    without = kim.post(path, fields)
    assert without.status_code == 422
    assert "reason" in without.text
    answers = [kim.post(path, {**fields, "reason": "ticket 4711"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert answers[0].headers["Location"] == answers[1].headers["Location"]
    assert len(night.bench.sent) == 1
    job = api.get(f"/v1/jobs/{night.bench.sent[0]}").json()
    assert (job["kind"], job["parameters"]) == ("power", {"action": "reset"})
    assert job["requested_by"] == "kim@example.org"
    entry = api.get("/v1/audit", params={"subject": night.annas.server_id}).json()["items"][0]
    assert (entry["actor"], entry["action"]) == ("kim@example.org", "submit_job")
    assert entry["reason"] == "ticket 4711"
    busy = kim.post(path, {**fields, "action": "check", "key": "another"})
    assert busy.status_code == 409
    assert f'href="/panel/jobs/{job["id"]}"' in busy.text


def test_a_plan_that_does_not_cover_it_is_said_and_kept(night: Night) -> None:
    installation = night.bench.installation
    plan = Plan("11111111-1111-4111-8111-111111111111", "bare", PlanKind.UNMANAGED)
    with writing(installation.database) as connection:
        installation.customers.add_plan(connection, plan, utc_now())
        installation.customers.place(
            connection, night.annas, _customer_id(night), plan.plan_id, utc_now()
        )
    anna = night.people["anna"]
    assert "its plan bare is unmanaged" in anna.get("/panel/servers/annas").text
    fields = {"csrf": anna.csrf(), "action": "backup", "key": "k"}
    assert anna.post("/panel/servers/annas/jobs", fields).status_code == 409
    assert night.bench.sent == []


def test_what_the_panel_does_not_offer_cannot_be_asked_for(night: Night) -> None:
    anna = night.people["anna"]
    for action in ("restore", "delete", "power", ""):
        fields = {"csrf": anna.csrf(), "action": action, "key": "k"}
        assert anna.post("/panel/servers/annas/jobs", fields).status_code == 422
    assert night.bench.sent == []


def test_servers_are_found_by_the_beginning_of_a_name_address_or_customer(night: Night) -> None:
    for number in range(60):
        night.bench.add_server(f"web-{number:02}")
    first = night.support.get("/panel/servers?search=WEB").text
    assert first.count("<strong>web-") == 50
    more = re.search(r'href="(/panel/servers\?[^"]*after=[^"]*)"', first)
    assert more is not None
    assert night.support.get(more[1].replace("&amp;", "&")).text.count("<strong>web-") == 10
    assert "annas" in night.support.get("/panel/servers?search=127.0").text
    assert "beas" in night.support.get("/panel/servers?search=bea").text
    assert "of a server begins with" in night.support.get("/panel/servers?search=%25").text


def _customer_id(night: Night) -> str:
    owner = night.bench.installation.inventory.owner_of(night.annas.server_id)
    assert owner is not None
    return owner


def test_a_stream_ends_after_its_time_and_whoever_was_signed_out_gets_no_other(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.panel.jobs.LONGEST_STREAM_SECONDS", 1.0)
    worker = work_on(night.bench.installation, night.beas, JobKind.PATCH)
    path = f"/panel/jobs/{worker.job.job_id}/events"
    first = night.support.get(path, Accept="text/event-stream")
    assert first.status_code == 200
    assert "event: end" not in first.text
    night.support.post("/panel/sign-out", {"csrf": night.support.csrf()})
    assert night.support.get(path, Accept="text/event-stream").status_code == 401


def test_what_is_no_page_is_told_on_a_page(night: Night) -> None:
    for path in ("/panel/none", "/panel/jobs/none", "/panel/servers/none"):
        answer = night.support.get(path)
        assert answer.status_code == 404
        assert answer.headers["Content-Type"].startswith("text/html")


def test_a_job_that_takes_long_shows_where_it_is(night: Night) -> None:
    worker: Worker = work_on(night.bench.installation, night.beas, JobKind.PATCH)
    worker.begin("update")
    page = night.support.get(f"/panel/jobs/{worker.job.job_id}").text
    assert 'hx-trigger="every 3s, sse:end"' in page
    assert re.search(r'sse-connect="/panel/jobs/[^"]+/events\?after=\d+"', page)
    assert "Live log" in page


def test_a_job_of_another_day_says_so_in_its_steps_and_its_log(night: Night) -> None:
    installation, asked_at = night.bench.installation, utc_now() - timedelta(days=400)
    new = installation.new_job(night.beas.server_id, JobKind.CHECK, {}, "a test")
    worker = Worker(installation, installation.queue.submit(new, asked_at))
    worker.record("check", {})
    worker.finish()
    path = f"/panel/jobs/{worker.job.job_id}"
    page, today = night.support.get(path).text, utc_now()
    text = re.sub("<[^>]+>", "", page)
    assert f"{asked_at:%b %Y %H:%M} UTC" in text
    day = f"{today:%a} {today.day} {today:%b}"
    assert re.search(rf"{day} [\d:]{{8}} to {day} [\d:]{{8}}", text)
    stream = re.sub("<[^>]+>", "", night.support.get(f"{path}/events").text)
    assert re.search(rf"data: {day} [\d:]{{8}} ", stream)


def test_hints_for_programs_are_not_shown_to_people(night: Night) -> None:
    answer = night.people["anna"].get("/panel/servers/beas")
    assert answer.status_code == 404
    assert "there is no server" in answer.text
    assert "/v1/" not in answer.text
