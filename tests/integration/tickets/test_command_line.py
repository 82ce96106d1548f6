"""`managed requests` against the real API."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from managed.cli import REFUSED, USAGE, run
from managed.settings import settings
from tests.integration.tickets.conftest import Desk
from tests.support.waiting import wait_until

Managed = Callable[..., Any]


@pytest.fixture
def managed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Managed]:
    """`managed requests … --json` as somebody types it; gives the document that it prints."""
    server = uvicorn.Server(
        uvicorn.Config(desk.app, port=0, log_config=None, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, timeout=60, what="the API serves")
        port = server.servers[0].sockets[0].getsockname()[1]
        monkeypatch.setenv("MANAGED_STATE_DIR", str(desk.installation.settings.state))
        monkeypatch.setenv("MANAGED_LISTEN_PORT", str(port))
        settings.cache_clear()

        def command(*arguments: str) -> Any:
            capsys.readouterr()  # what the API has logged by now
            status = run(["requests", *arguments, "--json"])
            printed = capsys.readouterr()
            assert status == 0, printed.err
            return json.loads(printed.out)

        yield command
    finally:
        server.should_exit = True
        thread.join(10)
        settings.cache_clear()


def test_requests_are_listed_shown_approved_and_refused(
    desk: Desk, managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    update = desk.ask("please update now")
    desk.deliver("it is \x1b[31murgent")
    slow = desk.ask("Everything is slow", sender="bea@example.org", ticket_id=82)
    assert [one["id"] for one in managed("list")["items"]] == [slow["id"], update["id"]]
    assert [one["id"] for one in managed("list", "--server", "shop")["items"]] == [update["id"]]
    assert managed("list", "--status", "done", "--customer", "Bea Ltd")["items"] == []

    assert managed("show", update["id"])["proposal"]["kind"] == "patch"
    assert run(["requests", "show", update["id"]]) == 0
    said = capsys.readouterr().out
    for told in ("proposed", "patch", "please update now", "it is \ufffd[31murgent"):
        assert told in said
    assert "\x1b[31m" not in said

    approved = managed("approve", update["id"])
    assert desk.installation.queue.job(approved["job_id"]).requested_by.endswith("ticket 10081")
    refused = managed("refuse", slow["id"], "Answered by telephone.", "--no-answer")
    assert (refused["status"], refused["reply"]) == ("refused", None)


def test_another_action_is_given_with_its_paths(
    desk: Desk, managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    request = desk.ask("Everything is slow")
    assert run(["requests", "approve", request["id"]]) == REFUSED
    assert "no action is proposed" in capsys.readouterr().err
    assert run(["requests", "approve", request["id"], "--path", "/etc"]) == REFUSED
    assert "--action" in capsys.readouterr().err
    assert run(["requests", "approve"]) == USAGE
    capsys.readouterr()
    approved = managed("approve", request["id"], "--action", "rescue", "--server", "shop")
    assert approved["decision"]["action"]["kind"] == "rescue"
