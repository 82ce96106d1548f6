"""From ansible-runner's events to events of ours and to a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from managed.domain.errors import (
    HostKeyChanged,
    Json,
    LoginRefused,
    ManagedError,
    PlaybookFailed,
    ServerUnreachable,
)
from managed.domain.secrets import Secret
from managed.drivers.ansible.outcome import RunRecord, report_or_error
from managed.drivers.ansible.private_files import extra_variables
from managed.ports import PlaybookReport


def record_of(*events: Mapping[str, Any]) -> tuple[RunRecord, list[tuple[str, Mapping[str, Json]]]]:
    told: list[tuple[str, Mapping[str, Json]]] = []
    record = RunRecord("p", lambda name, data: told.append((name, data)), (Secret("hush"),))
    for event in events:
        record.add(event)
    return record, told


def failed(task: str, message: str, **data: Any) -> dict[str, Any]:
    return {
        "event": "runner_on_failed",
        "event_data": {"task": task, "res": {"msg": message}, **data},
    }


def stats(**data: Any) -> dict[str, Any]:
    return {"event": "playbook_on_stats", "event_data": data}


def test_good_needs_statistics_and_status_zero() -> None:
    good, _ = record_of(stats(changed={"server": 2}, artifact_data={"a": 1}))

    assert report_or_error(good, 0, "s") == PlaybookReport(2, (), {"a": 1})
    for record, status in ((record_of()[0], 0), (good, 4), (good, None)):
        assert isinstance(report_or_error(record, status, "s"), PlaybookFailed)


def test_ignored_failures_are_no_failures() -> None:
    record, _ = record_of(failed("t", "m", ignore_errors=True), stats(changed={}))

    assert isinstance(report_or_error(record, 0, "s"), PlaybookReport)


def test_failed_tasks_carry_their_message_without_secrets() -> None:
    record, told = record_of(failed("t", "password hush is bad"), stats(failures={"server": 1}))

    error = report_or_error(record, 2, "s")
    assert isinstance(error, PlaybookFailed)
    assert error.details["tasks"] == [{"task": "t", "message": "password *** is bad"}]
    assert "hush" not in str(told)


def test_a_run_that_never_began_shows_its_last_lines() -> None:
    record, _ = record_of({"event": "verbose", "stdout": "ERROR! syntax"})

    error = report_or_error(record, 4, "s")
    assert isinstance(error, ManagedError)
    assert error.details["output"] == ["ERROR! syntax"]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Failed to connect: WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", HostKeyChanged),
        ("Host key verification failed.", HostKeyChanged),
        ("root@h: Permission denied (publickey).", LoginRefused),
        ("Connection timed out", ServerUnreachable),
        ("", ServerUnreachable),
    ],
)
def test_why_a_server_is_unreachable(message: str, kind: type[ManagedError]) -> None:
    event = {"event": "runner_on_unreachable", "event_data": {"task": "t", "res": {"msg": message}}}
    record, _ = record_of(event, stats(dark={"server": 1}))

    assert type(report_or_error(record, 4, "s")) is kind


def test_variables_are_never_templates() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor(
        "!unsafe", lambda loader, node: ("unsafe", loader.construct_scalar(node))
    )
    text = 'a "{{ 7 }}" \\ \x07\x85\u2028\ufffe é 😀\nend'

    read = yaml.load(
        extra_variables(
            {"text": text, "list": [1, None, True, {"deep": text}]}, {"s": Secret("x")}
        ),
        Loader,  # noqa: S506
    )

    marked = ("unsafe", text)
    assert read == {"text": marked, "list": [1, None, True, {"deep": marked}], "s": ("unsafe", "x")}
