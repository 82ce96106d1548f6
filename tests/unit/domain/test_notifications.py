"""Who hears of what, when it is tried again, and which addresses and URLs are refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest

from managed.domain.errors import CommandFailed, DeadlineExceeded, InvalidInput
from managed.domain.jobs import Job, JobKind, JobStatus, StepResult, StepStatus
from managed.domain.notifications import (
    Delivery,
    Occasion,
    Target,
    TargetKind,
    checked_mail_address,
    failed_job,
    next_try,
)
from managed.domain.secrets import Secret
from managed.domain.webhooks import address_refusal, checked_url, signature
from tests.support.webhook_receiver import verification_of_the_guide

NOW = datetime(2026, 4, 1, 2, 10, tzinfo=UTC)
STAFF = Target("t", TargetKind.EMAIL, "ops@example.org", frozenset(Occasion), None, NOW)
JOB = Job("j", "s", JobKind.PATCH, 1, JobStatus.RUNNING, {}, NOW, NOW, requested_by="clock")


def step(name: str, status: StepStatus) -> StepResult:
    return StepResult(name, status, 1, NOW, NOW)


def test_staff_hear_of_all_servers_a_customer_of_own_ones() -> None:
    anna = replace(STAFF, customer_id="anna")
    heard = [
        (target.customer_id, owner)
        for target in (STAFF, anna)
        for owner in (None, "anna", "bert")
        if target.hears_of(Occasion.JOB_FAILED, owner)
    ]
    assert heard == [(None, None), (None, "anna"), (None, "bert"), ("anna", "anna")]


def test_nobody_hears_of_what_was_not_asked_for() -> None:
    target = replace(STAFF, occasions=frozenset({Occasion.WINDOW_MISSED}))
    assert not target.hears_of(Occasion.JOB_FAILED, None)


def test_a_failed_job_names_its_step_its_error_and_what_was_left_behind() -> None:
    error = CommandFailed("apt-get ended with status 100", hint="Look.", path="/etc").as_json()
    steps = (
        step("check_before", StepStatus.DONE),
        step("update", StepStatus.FAILED),
        step("check_before", StepStatus.UNDO_FAILED),
    )
    incident = failed_job(replace(JOB, error=error, steps=steps), "all is used up", NOW)
    assert incident.subject_id == "j"
    assert incident.facts == {
        "job_id": "j",
        "job_kind": "patch",
        "requested_by": "clock",
        "step": "update",
        "error": {
            "code": "command-failed",
            "title": "A command failed",
            "detail": "apt-get ended with status 100",
            "hint": "Look.",
        },
        "gave_up": "all is used up",
        "not_undone": ["check_before"],
    }


def test_a_job_whose_time_is_used_up_says_so() -> None:
    late = replace(JOB, error=DeadlineExceeded("it took too long").as_json())
    assert failed_job(late, "", NOW).facts["gave_up"] == "the job's time is used up"


def test_pauses_double_up_to_an_hour_and_end_after_two_days() -> None:
    delivery = Delivery("d", STAFF, 1, NOW)
    now, pauses = NOW, []
    while at := next_try(delivery, now):
        pauses.append((at - now) // timedelta(minutes=1))
        now, delivery = at, replace(delivery, attempt=delivery.attempt + 1)
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert timedelta(hours=46) < now - NOW < timedelta(days=2)


@pytest.mark.parametrize("address", ["ops@example.org", "a.b+c@mail", "o'neil@x-y.example"])
def test_plain_mail_addresses_pass(address: str) -> None:
    assert checked_mail_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ops",
        "ops@",
        "@example.org",
        "a@b@c",
        "ops@example.org\nBcc: all@example.org",
        "ops@example.org\r\n",
        "ops@example.org, all@example.org",
        "Ops <ops@example.org>",
        "ops @example.org",
        "bär@example.org",
        f"{'a' * 65}@example.org",
        f"a@{'.'.join(['b' * 60] * 5)}",
    ],
)
def test_anything_else_is_no_mail_address(address: str) -> None:
    with pytest.raises(InvalidInput):
        checked_mail_address(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/managed?a=b",
        "https://hooks.example.org:8443/",
        "https://[2001:db8::1]/",
        "http://127.0.0.1:8080/hook",
        "http://localhost/hook",
        "http://[::1]/hook",
    ],
)
def test_https_urls_pass_and_http_to_loopback(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/",
        "http://localhost.example.org/",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user:secret@hooks.example.org/",
        "https://hooks.example.org/#part",
        "https://hooks.example.org/a b",
        "https://hooks.example.org/\r\nX-Header: 1",
        "https://hooks.example.org:0/",
        "https://hooks.example.org:port/",
        "https://[::1/",
        "https://a..b/",
        "https://a_b;c/",
        "https://%41.example.org/",
        "https://bär.example/",
        "https://hooks.example.org/" + "a" * 2000,
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        checked_url(url)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_public_addresses_are_called(address: str) -> None:
    assert address_refusal(ip_address(address), may_be_private=False) is None


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b:1::a00:1",
        "fec0::1",
        "::127.0.0.1",
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
    ],
)
def test_private_addresses_are_called_only_where_that_is_allowed(address: str) -> None:
    refusal = address_refusal(ip_address(address), may_be_private=False)
    assert refusal == f"{ip_address(address)} is a private address"
    assert address_refusal(ip_address(address), may_be_private=True) is None


@pytest.mark.parametrize("address", ["::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1"])
def test_what_is_no_hosts_address_is_never_called(address: str) -> None:
    assert address_refusal(ip_address(address), may_be_private=True) is not None


def test_the_guides_code_accepts_our_signature_and_nothing_else() -> None:
    is_genuine = verification_of_the_guide()
    body, moment = b'{"id": "d-1"}', NOW.timestamp()
    header = signature(Secret("key"), NOW, body)
    assert is_genuine("key", header, body, moment)
    assert is_genuine("key", header, body, moment + 300)
    assert not is_genuine("key", header, body, moment + 301)
    assert not is_genuine("key", header, body)
    assert not is_genuine("another", header, body, moment)
    assert not is_genuine("key", header, body + b" ", moment)
    later = header.replace(f"t={int(moment)}", f"t={int(moment) + 1}")
    assert not is_genuine("key", later, body, moment)
    for broken in ("", "t=,v1=", "v1=00", f"t={int(moment)}", "t=now,v1=ü", "t=²,v1="):
        assert not is_genuine("key", broken, body, moment)
