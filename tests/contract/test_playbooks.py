"""What every Playbooks port keeps, the fake and the real one (against an sshd of the tests')."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from managed.domain.connections import Endpoint
from managed.domain.errors import (
    HostKeyChanged,
    InvalidInput,
    Json,
    PlaybookFailed,
    ServerUnreachable,
)
from managed.domain.secrets import Secret
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.drivers.fakes.playbooks import FakePlaybooks, PlaybookCall
from managed.ports import PlaybookReport, Playbooks
from tests.support.local_sshd import local_sshd, new_key
from tests.support.runtime import short_directory

PLAYBOOKS = Path(__file__).parents[1] / "support" / "playbooks"
SECRET = Secret("correct horse battery staple")


@dataclass
class Bench:
    """A port, a server for it, and what it told us; its child is told, too."""

    port: Playbooks
    endpoint: Endpoint
    events: list[tuple[str, Mapping[str, Json]]] = field(default_factory=list)

    def run(self, playbook: str, **changes: object) -> PlaybookReport:
        arguments: dict[str, object] = {
            "variables": {"word": "blue {{ 6 * 7 }}"},
            "secrets": {"password": SECRET},
            "emit": lambda name, data: self.events.append((name, data)),
            "register_child": lambda pid: self.events.append(("child", {"pid": pid})),
            "timeout": 120,
        }
        arguments.update(changes)
        endpoint = arguments.pop("endpoint", self.endpoint)
        return self.port.run(playbook, endpoint, **arguments)  # type: ignore[arg-type]

    def task_statuses(self) -> list[tuple[Json, Json]]:
        return [(d["task"], d["status"]) for name, d in self.events if name == "playbook_task"]

    def children(self) -> list[Json]:
        return [data["pid"] for name, data in self.events if name == "child"]


@dataclass(frozen=True)
class GoodRun:
    """What a port told and reported of a playbook that went well."""

    bench: Bench
    report: PlaybookReport


def _fake_answers(good: Endpoint) -> dict[str, object]:
    def reachable(call: PlaybookCall) -> None:
        if call.endpoint.host_key != good.host_key:
            raise HostKeyChanged("another key")
        if call.endpoint.port != good.port:
            raise ServerUnreachable("nobody there")

    def report_word(call: PlaybookCall) -> PlaybookReport:
        reachable(call)
        return PlaybookReport(1, (), {"word": call.variables["word"], "answer": 42})

    def fail(call: PlaybookCall) -> PlaybookReport:
        reachable(call)
        raise PlaybookFailed("no", tasks=[{"task": "Fail on purpose", "message": "on purpose"}])

    return {"report_word": report_word, "fail": fail}


@pytest.fixture(
    scope="module", params=["fake", pytest.param("real", marks=pytest.mark.integration)]
)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """A port and its server; each test takes a bench of its own."""
    if request.param == "fake":
        endpoint = Endpoint("192.0.2.1", 22, "root", "ssh-ed25519 AAAA", Secret("key"))
        yield Bench(FakePlaybooks(_fake_answers(endpoint)), endpoint)  # type: ignore[arg-type]
        return
    with short_directory() as runtime, local_sshd(tmp_path_factory.mktemp("sshd")) as endpoint:
        yield Bench(AnsiblePlaybooks(PLAYBOOKS, runtime), endpoint)
        assert list(runtime.iterdir()) == [], "a private directory was left behind"


@pytest.fixture
def bench(served: Bench) -> Bench:
    return Bench(served.port, served.endpoint)


@pytest.fixture(scope="module")
def good_run(served: Bench) -> GoodRun:
    bench = Bench(served.port, served.endpoint)
    return GoodRun(bench, bench.run("report_word"))


def test_a_good_run_reports_changes_and_facts(good_run: GoodRun) -> None:
    assert good_run.report.changed == 1
    assert good_run.report.failed_tasks == ()
    assert good_run.report.facts == {"word": "blue {{ 6 * 7 }}", "answer": 42}


def test_tasks_and_output_are_told_as_they_come(good_run: GoodRun) -> None:
    statuses = [status for _, status in good_run.bench.task_statuses()]
    assert statuses[0] == "started"
    assert "changed" in statuses
    assert any(name == "playbook_output" for name, _ in good_run.bench.events)


def test_the_child_is_registered_before_anything_is_told(good_run: GoodRun) -> None:
    assert good_run.bench.events[0][0] == "child"
    assert len(good_run.bench.children()) == 1


def test_secrets_are_never_told(good_run: GoodRun) -> None:
    assert SECRET.reveal() not in json.dumps(good_run.bench.events)


def test_no_child_no_work(bench: Bench) -> None:
    class NoDatabase(Exception):
        pass

    def refuse(_pid: int) -> None:
        raise NoDatabase

    with pytest.raises(NoDatabase):
        bench.run("report_word", register_child=refuse)
    assert bench.events == []


def test_a_failed_task_is_named_in_the_error(bench: Bench) -> None:
    with pytest.raises(PlaybookFailed) as caught:
        bench.run("fail")

    assert caught.value.details["tasks"] == [{"task": "Fail on purpose", "message": "on purpose"}]
    assert not caught.value.retryable


def test_an_unknown_playbook_is_invalid_input(bench: Bench) -> None:
    with pytest.raises(InvalidInput):
        bench.run("no-such-playbook")


def test_an_unreachable_server_is_not_a_failed_playbook(bench: Bench) -> None:
    closed = dataclasses.replace(bench.endpoint, port=1)

    with pytest.raises(ServerUnreachable) as caught:
        bench.run("report_word", endpoint=closed)
    assert caught.value.retryable


def test_another_host_key_stops_everything(bench: Bench, tmp_path: Path) -> None:
    stranger = dataclasses.replace(bench.endpoint, host_key=new_key(tmp_path / "other"))

    with pytest.raises(HostKeyChanged) as caught:
        bench.run("report_word", endpoint=stranger)
    assert not caught.value.retryable


def test_what_emit_raises_ends_the_run_and_comes_through(bench: Bench) -> None:
    class Lost(Exception):
        pass

    def lose(_name: str, _data: Mapping[str, Json]) -> None:
        raise Lost

    with pytest.raises(Lost):
        bench.run("report_word", emit=lose)
    for pid in bench.children():
        assert pid == os.getpid() or not Path(f"/proc/{pid}/exe").exists()
