"""Staff decides on requests: approved once, refused once, and what cannot be done stays open."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from managed.domain.jobs import JobKind, JobStatus
from managed.domain.servers import Server, ServerOrigin
from managed.storage.database import writing
from managed.wiring import utc_now
from tests.integration.api.test_events import request_examples
from tests.integration.api.test_refusals import problem
from tests.integration.tickets.conftest import Desk

BACKED_UP = datetime(2026, 11, 23, 1, tzinfo=UTC)
WHOLE = "Please restore the whole server as of yesterday 18:00"


def server(desk: Desk, name: str = "shop") -> Server:
    found = desk.installation.inventory.by_name(name)
    assert found is not None
    return found


def test_an_approved_request_starts_its_job_in_the_name_of_who_approved_it(desk: Desk) -> None:
    request = desk.ask("please update now")
    answer = desk.api.post(
        f"/v1/requests/{request['id']}/approve", headers={"X-Requested-By": "kim"}
    )
    assert answer.status_code == 202, answer.text
    approved = answer.json()
    job = desk.installation.queue.job(approved["job_id"])
    assert (job.kind, job.parameters) == (JobKind.PATCH, {})
    assert job.requested_by == "kim (api-token) for ticket 10081"
    assert job.run_key == f"request:{request['id']}"
    assert desk.sent == [job.job_id], "workers hear of it after the commit"
    assert approved["status"] == "approved"
    assert approved["decision"]["by"] == "kim (api-token)"
    assert approved["decision"]["action"]["kind"] == "patch"
    assert answer.headers["location"] == f"/v1/jobs/{job.job_id}"
    assert desk.request(request["id"]) == approved


def test_approving_twice_makes_one_job(desk: Desk) -> None:
    request = desk.ask("please update now")
    first, second = desk.approve(request["id"]), desk.approve(request["id"])
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert desk.sent == [first.json()["job_id"]]
    desk.end(first.json()["job_id"], JobStatus.SUCCEEDED)
    assert desk.approve(request["id"]).json()["job_id"] == first.json()["job_id"]
    assert len(desk.installation.queue.find()) == 1


def test_two_approvers_at_once_make_one_job(desk: Desk) -> None:
    request = desk.ask("please update now")
    together = 4
    at_once = threading.Barrier(together)

    def approve(_: int) -> Any:
        at_once.wait(60)
        answer = desk.approve(request["id"])
        assert answer.status_code == 202, answer.text
        return answer.json()["job_id"]

    with ThreadPoolExecutor(together) as threads:
        ids = set(threads.map(approve, range(together)))
    assert [job.job_id for job in desk.installation.queue.find()] == list(ids)


def test_one_approves_while_another_refuses_and_one_of_them_wins(desk: Desk) -> None:
    request = desk.ask("please update now")
    at_once = threading.Barrier(2)

    def decide(approves: bool) -> int:
        at_once.wait(60)
        if approves:
            return desk.approve(request["id"]).status_code
        return desk.refuse(request["id"], "Not now.").status_code

    with ThreadPoolExecutor(2) as threads:
        approved, refused = threads.map(decide, (True, False))
    assert (approved, refused) in ((202, 409), (409, 200))
    jobs = desk.installation.queue.find()
    assert len(jobs) == (1 if approved == 202 else 0)
    status = desk.request(request["id"])["status"]
    assert status == ("approved" if approved == 202 else "refused")


def test_staff_may_correct_the_action(desk: Desk) -> None:
    desk.add_snapshot(server(desk), BACKED_UP, verified=True)
    request = desk.ask("My server does not boot")
    corrected = {"kind": "restore-server", "as_of": "2026-11-23T12:00:00Z"}
    approved = desk.approve(request["id"], action=corrected).json()
    job = desk.installation.queue.job(approved["job_id"])
    assert (job.kind, job.parameters) == (
        JobKind.RESTORE,
        {"as_of": "2026-11-23T12:00:00+00:00"},
    )
    assert approved["proposal"]["kind"] == "rescue", "what was proposed stays on record"
    assert approved["decision"]["action"]["kind"] == "restore-server"
    problem(desk.approve(request["id"], action={"kind": "patch"}), 409, "conflict")
    assert desk.approve(request["id"], action=corrected).status_code == 202


def test_a_whole_restore_needs_a_verified_backup_of_that_time(desk: Desk) -> None:
    request = desk.ask(WHOLE)
    assert request["proposal"]["kind"] == "restore-server"
    problem(desk.approve(request["id"]), 409, "no-backup")
    desk.add_snapshot(server(desk), BACKED_UP, verified=False)
    problem(desk.approve(request["id"]), 409, "no-backup")
    assert desk.request(request["id"])["status"] == "open"
    desk.add_snapshot(server(desk), BACKED_UP, verified=True)
    assert desk.approve(request["id"]).status_code == 202


def test_a_server_that_cannot_be_rescued_leaves_the_request_open(desk: Desk) -> None:
    enrolled = desk.add_server("rented", origin=ServerOrigin.ENROLLED)
    desk.give(enrolled, desk.customers["Anna Ltd"])
    request = desk.ask("My server does not boot", server="rented")
    problem(desk.approve(request["id"]), 409, "not-supported")
    assert desk.request(request["id"])["status"] == "open"


def test_a_busy_server_is_said_with_its_job_and_the_request_stays_open(desk: Desk) -> None:
    busy = desk.add_job(server(desk))
    request = desk.ask("please update now")
    refusal = problem(desk.approve(request["id"]), 409, "server-busy")
    assert refusal["data"]["job_id"] == busy.job_id
    assert desk.request(request["id"])["status"] == "open"
    desk.end_job(busy)
    assert desk.approve(request["id"]).status_code == 202


def test_in_a_pause_an_update_waits_and_a_rescue_does_not(desk: Desk) -> None:
    with writing(desk.installation.database) as connection:
        desk.installation.windows.begin_pause(connection, "a bad kernel", "kim", utc_now())
    update = desk.ask("please update now")
    problem(desk.approve(update["id"]), 409, "paused")
    rescue = desk.ask("My server does not boot", ticket_id=82)
    assert desk.approve(rescue["id"]).status_code == 202


def test_a_restore_of_files_is_proposed_and_becomes_its_job(desk: Desk) -> None:
    desk.add_snapshot(server(desk), utc_now(), verified=True)
    request = desk.ask("please restore /var/www")
    approved = desk.approve(request["id"])
    assert approved.status_code == 202, approved.text
    job = desk.installation.queue.job(approved.json()["job_id"])
    assert job.kind is JobKind.RESTORE_FILES
    assert job.parameters == {"paths": ["/var/www"], "target": "beside"}


def test_what_no_backup_holds_is_not_approved(desk: Desk) -> None:
    desk.add_snapshot(server(desk), utc_now(), verified=True)
    request = desk.ask("please restore /proc/meminfo")
    problem(desk.approve(request["id"]), 422, "invalid-input")
    assert desk.request(request["id"])["status"] == "open"


def test_where_no_rule_fits_a_person_gives_the_action(desk: Desk) -> None:
    request = desk.ask("Everything is slow today")
    assert (request["proposal"]["kind"], request["rule"]) == ("none", "none")
    assert "A person reads it" in request["why"]
    problem(desk.approve(request["id"]), 422, "invalid-input")
    assert desk.approve(request["id"], action={"kind": "patch"}).status_code == 202


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "none"},
        {"kind": "shell"},
        {"kind": "restore-files"},
        {"kind": "restore-files", "paths": ["relative"]},
        {"kind": "restore-files", "paths": ["/etc/../root"]},
        {"kind": "restore-files", "paths": ["/etc\u0000"]},
        {"kind": "restore-files", "paths": ["/etc/\u202etxt"]},
        {"kind": "restore-files", "paths": ["/"]},
        {"kind": "restore-files", "paths": [f"/{n}" for n in range(51)]},
        {"kind": "patch", "paths": ["/etc"]},
        {"kind": "patch", "as_of": "2026-11-23T12:00:00Z"},
        {"kind": "restore-server", "as_of": "yesterday"},
        {"kind": "patch", "command": "reboot"},
    ],
)
def test_a_senseless_action_is_refused(desk: Desk, action: dict[str, Any]) -> None:
    request = desk.ask("please update now")
    problem(desk.approve(request["id"], action=action), 422, "invalid-input")
    assert desk.request(request["id"])["status"] == "open"


def test_a_server_that_has_another_owner_by_now_is_not_touched(desk: Desk) -> None:
    request = desk.ask("please update now", server="shop")
    desk.give(server(desk), desk.customers["Bea Ltd"])
    refusal = problem(desk.approve(request["id"]), 409, "conflict")
    assert "may ask nothing for this server" in refusal["detail"]
    assert desk.installation.queue.find() == []


def test_a_refusal_tells_the_sender_why_once(desk: Desk) -> None:
    request = desk.ask("please update now")
    refused = desk.refuse(request["id"], "Your plan is unmanaged.").json()
    assert (refused["status"], refused["decision"]["reason"]) == (
        "refused",
        "Your plan is unmanaged.",
    )
    assert "Your plan is unmanaged." in refused["reply"]["text"]
    again = desk.refuse(request["id"], "Another reason.").json()
    assert again == refused
    problem(desk.approve(request["id"]), 409, "conflict")


def test_a_refusal_without_an_answer_sends_none(desk: Desk) -> None:
    request = desk.ask("Everything is slow")
    refused = desk.refuse(request["id"], "answered by telephone", answer=False).json()
    assert (refused["status"], refused["reply"]) == ("refused", None)


def test_what_is_approved_cannot_be_refused(desk: Desk) -> None:
    request = desk.ask("please update now")
    desk.approve(request["id"])
    problem(desk.refuse(request["id"], "too late"), 409, "conflict")


def test_the_audit_log_says_which_ticket_a_decision_is_for(desk: Desk) -> None:
    desk.approve(desk.ask("please update now")["id"])
    desk.refuse(desk.ask("Everything is slow", ticket_id=82)["id"], "Please call us.")
    third = desk.ask("Everything is slow", ticket_id=83)["id"]
    path, body = f"/v1/requests/{third}/refuse", {"reason": "Please call us."}
    desk.api.post(path, json=body, headers={"X-Reason": "our policy"})
    own, refused, approved = desk.api.get("/v1/audit", params={"limit": 3}).json()["items"]
    assert (approved["action"], refused["action"]) == ("approve_request", "refuse_request")
    assert approved["reason"] == f"ticket {approved['data']['ticket']}" == "ticket 10081"
    assert refused["reason"] == f"ticket {refused['data']['ticket']}" == "ticket 10082"
    assert (own["reason"], own["data"]["ticket"]) == ("our policy", "10083")


def test_requests_are_listed_newest_first_and_by_what_is_asked(desk: Desk) -> None:
    of_shop = desk.ask("please update now")
    of_blog = desk.ask("please update now", sender="bea@example.org", ticket_id=82)
    stranger = desk.ask("please update now", sender="mallory@example.com", ticket_id=83)

    def listed(**query: str) -> list[str]:
        answer = desk.api.get("/v1/requests", params=query)
        assert answer.status_code == 200, answer.text
        return [one["id"] for one in answer.json()["items"]]

    assert listed() == [stranger["id"], of_blog["id"], of_shop["id"]]
    assert listed(status="open") == [of_blog["id"], of_shop["id"]]
    assert listed(server="shop") == [of_shop["id"]]
    assert listed(customer="Bea Ltd") == [of_blog["id"]]
    assert listed(status="done") == []
    first = desk.api.get("/v1/requests", params={"limit": 2}).json()
    assert listed(cursor=first["next"]) == [of_shop["id"]]
    problem(desk.api.get("/v1/requests", params={"customer": "nobody"}), 404, "not-found")
    problem(desk.api.get("/v1/requests", params={"state": "open"}), 422, "invalid-input")


def test_unknown_requests_are_not_found(desk: Desk) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    problem(desk.api.get(f"/v1/requests/{unknown}"), 404, "not-found")
    problem(desk.approve(unknown), 404, "not-found")
    problem(desk.refuse(unknown, "why"), 404, "not-found")
    problem(desk.api.get("/v1/requests/shop"), 422, "invalid-input")


def test_every_request_that_is_shown_is_accepted(desk: Desk) -> None:
    """What the OpenAPI document shows must work."""
    desk.add_snapshot(server(desk), BACKED_UP, verified=True)
    shown = {path: body for _, path, _, body in request_examples(desk.app.openapi())}
    delivered = desk.send_raw(json.dumps(shown["/v1/webhooks/zammad"]).encode())
    assert delivered.json()["outcome"] == "request", delivered.text
    approval = shown["/v1/requests/{request_id}/approve"]
    assert desk.approve(delivered.json()["request_id"], **approval).status_code == 202
    other = desk.ask("please update now", ticket_id=82)
    assert desk.refuse(other["id"], **shown["/v1/requests/{request_id}/refuse"]).status_code == 200


def test_nobody_else_may_use_the_run_key_of_a_request(desk: Desk) -> None:
    body = {"kind": "patch", "run_key": "request:1"}
    problem(desk.api.post("/v1/servers/shop/jobs", json=body), 422, "invalid-input")
