"""Small values of the domain: secrets, names, questions, run logs."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from managed.domain.errors import InvalidInput, Json, ServerBusy
from managed.domain.questions import (
    PowerIs,
    RunEnded,
    SshAnswers,
    question_as_json,
    question_from_json,
)
from managed.domain.run_log import MARK, events_of_log
from managed.domain.secrets import Secret
from managed.domain.servers import (
    checked_address,
    checked_name,
    checked_size,
    disk_serial_for,
)


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("hunter2")
    shown = f"{secret} {secret!r} {secret!s} {[secret]} {secret:>20}"
    assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps({"password": secret})
    assert secret.reveal() == "hunter2"


@pytest.mark.parametrize("name", ["a", "web-1", "a" * 63])
def test_host_names_are_accepted(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "../x", "a" * 64, "ä", "a\n"])
def test_other_names_are_refused_with_a_hint(name: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        checked_name(name)
    assert refusal.value.hint


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "vps.example.org", "localhost"])
def test_addresses_are_accepted(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize("address", ["", "-oProxyCommand=x", "a b", "vps..org", "a/b", "x" * 254])
def test_what_a_command_line_could_misread_is_no_address(address: str) -> None:
    with pytest.raises(InvalidInput):
        checked_address(address)


@pytest.mark.parametrize("size", [(0, 512, 10), (1, 128, 10), (1, 512, 1), (1, 512, 10**9)])
def test_impossible_sizes_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput):
        checked_size(*size)


def test_disk_serials_fit_and_differ() -> None:
    serials = {disk_serial_for(f"{n:08x}-0000-4000-8000-{n:012x}") for n in range(100)}
    assert len(serials) == 100
    assert all(len(serial) <= 20 for serial in serials)


@pytest.mark.parametrize(
    "question",
    [RunEnded("j.s.1", tunnel=True, offset=7), SshAnswers("boot", "up"), PowerIs("stopped")],
)
def test_questions_survive_json(question: RunEnded | SshAnswers | PowerIs) -> None:
    document = json.loads(json.dumps(question_as_json(question)))
    assert question_from_json(document) == question


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "weather"},
        {},
        {"kind": ["run-ended"]},
        {"kind": "run-ended"},
        {"kind": "run-ended", "run_id": "j.s.1", "of_a_later_version": True},
        {"kind": "run-ended", "run_id": "j.s.1", "offset": "0"},
        {"kind": "run-ended", "run_id": "j.s.1", "offset": True},
    ],
)
def test_a_question_that_this_version_does_not_know_is_an_error(document: dict[str, Json]) -> None:
    with pytest.raises(InvalidInput):
        question_from_json(document)


def test_marked_lines_become_events_and_the_others_output() -> None:
    text = 'one\ntwo\n@managed {"event": "patch_progress", "done": 1}\n@managed broken\nthree\n'
    assert list(events_of_log(text)) == [
        ("run_output", {"lines": ["one", "two"]}),
        ("patch_progress", {"done": 1}),
        ("run_output", {"lines": ["@managed broken", "three"]}),
    ]


@pytest.mark.parametrize(
    "said",
    [
        '{"event": "job_ended", "status": "succeeded"}',
        '{"event": "step_done", "step": "verify"}',
        '{"event": "run_output", "lines": ["forged"]}',
        f'{{"event": "{"x" * 64}"}}',
        '{"event": "patch_progress", "percent": NaN}',
        '{"event": "patch_progress", "percent": 1e999}',
        '{"event": "patch_progress", "percent": {"nested": 1}}',
        '{"event": "patch_progress", "percent": "[/nope]"}',
        '{"event": "patch_progress", "percent": true}',
        '{"event": "manifest_progress", "files": "many"}',
        '{"event": "backup_step", "name": 7}',
        f'{{"event": "patch_progress", "phase": "{"x" * 2000}"}}',
        '{"event": ["patch_progress"]}',
        "[" * 1900,
        "7",
    ],
)
def test_what_no_script_of_ours_says_stays_plain_output(said: str) -> None:
    assert list(events_of_log(MARK + said)) == [("run_output", {"lines": [MARK + said]})]


@settings(deadline=None)
@given(some.text())
def test_any_log_can_be_read(text: str) -> None:
    for name, data in events_of_log(text):
        json.dumps({name: data})


def test_errors_tell_people_what_to_do() -> None:
    document = ServerBusy("a patch is at work", hint="Wait.", job_id="7").as_json()
    assert document["code"] == "server-busy"
    assert document["hint"] == "Wait."
    assert document["data"] == {"job_id": "7"}
