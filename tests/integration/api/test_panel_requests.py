"""A ticket's request on the panel: read, approved once, refused with what the sender reads."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import pytest
from fastapi.testclient import TestClient

from managed.domain.requests import Action, ActionKind
from tests.integration.api.test_panel_pages import Night, night
from tests.support.nights import HOSTILE, asked_by_ticket
from tests.support.panel import hidden

__all__ = ["night"]

NOON: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_a_request_is_read_and_approved_once(night: Night, api: TestClient) -> None:
    kim, path = night.support, f"/panel/requests/{night.asked}"
    form = kim.get(path).text
    text = " ".join(re.sub("<[^>]+>", " ", form).split())
    for part in (
        "it does not boot ? open ticket 4710",
        "From anna@example.org",
        "Server annas",
        "rescue : the text says that it does not boot",
        "what runs on it is down until the session ends",
        "Approve rescue on annas",
    ):
        assert part in text, part
    fields = {name: hidden(form, name) for name in ("csrf", "key")}
    answers = [kim.post(f"{path}/approve", fields) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert answers[0].headers["Location"] == answers[1].headers["Location"]
    job = api.get(f"/v1/jobs/{night.bench.sent[0]}").json()
    assert answers[0].headers["Location"] == f"/panel/jobs/{job['id']}"
    assert (job["kind"], job["requested_by"]) == ("rescue", "kim@example.org for ticket 4710")
    assert len(night.bench.sent) == 1
    entry = api.get("/v1/audit", params={"subject": night.annas.server_id}).json()["items"][0]
    assert (entry["actor"], entry["action"]) == ("kim@example.org", "approve_request")
    assert entry["reason"] == "ticket 4710"
    decided = kim.get(path).text
    assert f'href="/panel/jobs/{job["id"]}"' in decided
    assert "The ticket is answered when the job has ended." in decided
    assert "<form" not in decided.split("<main", 1)[1]


def test_what_a_colleague_has_approved_otherwise_is_nobody_elses_click(
    night: Night, api: TestClient
) -> None:
    other = {"action": {"kind": "patch"}}
    assert api.post(f"/v1/requests/{night.asked}/approve", json=other).status_code == 202
    fields = {"csrf": night.support.csrf(), "key": "k"}
    late = night.support.post(f"/panel/requests/{night.asked}/approve", fields)
    assert late.status_code == 409
    assert "approved with another action" in late.text
    assert len(night.bench.sent) == 1


def test_something_else_than_what_is_proposed_can_be_chosen(night: Night, api: TestClient) -> None:
    kim, path = night.support, f"/panel/requests/{night.asked}"
    form = kim.get(path).text
    assert "Something else than rescue" in form
    fields = {name: hidden(form, name) for name in ("csrf", "key")}
    chosen = {**fields, "action": "patch", "paths": "", "as_of": ""}
    assert kim.post(f"{path}/approve", chosen).status_code == 303
    approved = api.get(f"/v1/requests/{night.asked}").json()["decision"]["action"]
    assert approved == {"kind": "patch", "paths": [], "as_of": None}
    assert api.get(f"/v1/jobs/{night.bench.sent[0]}").json()["kind"] == "patch"


@pytest.mark.parametrize("chosen", ["patch", "rescue", "restore-server"])
def test_fields_of_what_was_proposed_do_not_hinder_another_action(
    night: Night, api: TestClient, chosen: str
) -> None:
    night.bench.add_snapshot(night.annas, NOON, verified=True)
    proposed = Action(ActionKind.RESTORE_FILES, ("/var/www/shop",), NOON)
    asked = asked_by_ticket(night.bench.installation, 4715, "files", night.annas, proposed)
    path = f"/panel/requests/{asked}"
    form = night.support.get(path).text
    assert ">/var/www/shop</textarea>" in form
    assert 'value="2026-11-23T12:00:00"' in form
    fields = {
        **{name: hidden(form, name) for name in ("csrf", "key")},
        "action": chosen,
        "paths": "/var/www/shop",
        "as_of": "2026-11-23T12:00:00",
    }
    assert night.support.post(f"{path}/approve", fields).status_code == 303
    approved = api.get(f"/v1/requests/{asked}").json()["decision"]["action"]
    as_of = "2026-11-23T12:00:00Z" if chosen == "restore-server" else None
    assert approved == {"kind": chosen, "paths": [], "as_of": as_of}


def test_paths_are_chosen_by_the_line_and_the_time_in_utc(night: Night, api: TestClient) -> None:
    night.bench.add_snapshot(night.annas, NOON, verified=True)
    fields = {
        "csrf": night.support.csrf(),
        "action": "restore-files",
        "paths": "/var/www/shop\r\n\r\n /etc/nginx \r\n",
    }

    def choose(as_of: str) -> int:
        given = {**fields, "key": as_of, "as_of": as_of}
        return night.support.post(f"/panel/requests/{night.asked}/approve", given).status_code

    assert choose("2026-11-23T11:59:59") == 409, "there was no backup yet"
    assert choose("2026-11-23T12:00") == 303
    parameters = api.get(f"/v1/jobs/{night.bench.sent[0]}").json()["parameters"]
    assert parameters["paths"] == ["/var/www/shop", "/etc/nginx"]
    assert parameters["target"] == "beside"


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"action": "delete"}, "this cannot be done for a ticket"),
        ({"action": "none"}, "no action is proposed"),
        ({"action": "restore-files"}, "a restore of files needs paths"),
        ({"action": "restore-files", "paths": "/a" * 4096}, "one is too long"),
        ({"action": "restore-files", "paths": "../etc"}, "../etc"),
        ({"action": "restore-server", "as_of": "yesterday"}, "&#39;yesterday&#39; is no time"),
        ({"action": "restore-server", "as_of": "9999-12-31T23:59"}, "is no time"),
    ],
)
def test_what_cannot_be_chosen_is_said_and_leaves_the_request_open(
    night: Night, api: TestClient, chosen: dict[str, str], said: str
) -> None:
    fields = {"csrf": night.support.csrf(), "key": "k", **chosen}
    answer = night.support.post(f"/panel/requests/{night.asked}/approve", fields)
    assert answer.status_code == 422
    assert said in answer.text
    assert api.get(f"/v1/requests/{night.asked}").json()["status"] == "open"
    assert night.bench.sent == []


def test_a_request_is_refused_with_what_the_sender_reads(night: Night, api: TestClient) -> None:
    kim, path = night.support, f"/panel/requests/{night.asked}"
    form = kim.get(path).text
    fields = {name: hidden(form, name) for name in ("csrf", "key")}
    without = kim.post(f"{path}/refuse", {**fields, "reason": " "})
    assert without.status_code == 422
    assert "the reason is missing" in without.text
    reason = "It boots. Please look again."
    refused = kim.post(f"{path}/refuse", {**fields, "reason": reason, "answer": "on"})
    assert (refused.status_code, refused.headers["Location"]) == (303, path)
    found = api.get(f"/v1/requests/{night.asked}").json()
    assert (found["status"], found["decision"]["by"]) == ("refused", "kim@example.org")
    assert reason in found["reply"]["text"]
    entry = api.get("/v1/audit", params={"action": "refuse_request"}).json()["items"][0]
    assert (entry["actor"], entry["reason"]) == ("kim@example.org", "ticket 4710")
    assert entry["data"] == {"request_id": night.asked, "ticket": "4710", "why": reason}
    decided = kim.get(path).text
    assert "is about to be sent" in decided
    late = kim.post(f"{path}/approve", {**fields, "key": "another"})
    assert late.status_code == 409
    assert "the request was refused" in late.text


def test_nothing_is_sent_of_what_is_answered_elsewhere(night: Night, api: TestClient) -> None:
    path = f"/panel/requests/{night.asked}"
    fields = {"csrf": night.support.csrf(), "key": "k", "reason": "answered by telephone"}
    assert night.support.post(f"{path}/refuse", fields).status_code == 303
    assert api.get(f"/v1/requests/{night.asked}").json()["reply"] is None
    assert "Nothing is sent to the ticket." in night.support.get(path).text


def test_a_request_without_a_server_is_approved_for_one_of_the_senders(
    night: Night, api: TestClient
) -> None:
    kim = night.support
    path = f"/panel/requests/{asked_by_ticket(night.bench.installation, 4713, 'help')}"
    form = kim.get(path).text
    assert 'name="server"' in form
    fields = {"csrf": hidden(form, "csrf"), "key": "k"}
    assert kim.post(f"{path}/approve", fields).status_code == 422
    others = kim.post(f"{path}/approve", {**fields, "key": "l", "server": "beas"})
    assert others.status_code == 409
    assert "the sender may ask nothing for this server" in others.text
    assert kim.post(f"{path}/approve", {**fields, "server": HOSTILE}).status_code in (404, 422)
    assert night.bench.sent == []
    approved = kim.post(f"{path}/approve", {**fields, "key": "m", "server": "annas"})
    assert approved.status_code == 303
    assert api.get(f"/v1/jobs/{night.bench.sent[0]}").json()["server_id"] == night.annas.server_id
