"""Passwords, sessions, invitations and the wait after failed sign-ins: the decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from api.panel.protection import comes_from_our_pages
from api.panel.throttle import Throttle
from managed.domain.access import Role, User
from managed.domain.errors import InvalidInput
from managed.domain.sign_in import (
    FAILURES_COUNTED_FOR,
    FAILURES_PER_ADDRESS,
    FAILURES_PER_USER,
    INVITATION_LIFE,
    SESSION_IDLE,
    SESSION_LIFE,
    Invitation,
    PanelSession,
    checked_password,
    wait_after_failures,
)

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
KIM = User("u1", "kim@example.org", "Kim of support", Role.SUPPORT, None, NOW)
DISABLED = replace(KIM, disabled_at=NOW)
OWN = "https://panel.example.org"


def test_a_session_ends_by_age_idleness_or_its_user() -> None:
    session = PanelSession("h", "u1", "c", NOW, NOW)
    moment = timedelta(seconds=1)
    assert session.limitation(KIM, NOW + SESSION_IDLE - moment) is None
    assert "60 minutes" in (session.limitation(KIM, NOW + SESSION_IDLE) or "")
    used = replace(session, last_seen_at=NOW + SESSION_LIFE - moment)
    assert used.limitation(KIM, NOW + SESSION_LIFE - moment) is None
    assert "12 hours" in (used.limitation(KIM, NOW + SESSION_LIFE) or "")
    assert "disabled" in (session.limitation(DISABLED, NOW) or "")


def test_an_invitation_ends_by_age_use_or_its_user() -> None:
    invitation = Invitation("h", "u1", NOW, NOW + INVITATION_LIFE)
    assert invitation.limitation(KIM, NOW) is None
    assert "expired" in (invitation.limitation(KIM, NOW + INVITATION_LIFE) or "")
    assert "used" in (replace(invitation, used_at=NOW).limitation(KIM, NOW) or "")
    assert "disabled" in (invitation.limitation(DISABLED, NOW) or "")


@pytest.mark.parametrize(
    ("password", "again", "problem"),
    [
        ("eleven char", "eleven char", "12 to 256"),
        ("x" * 257, "x" * 257, "12 to 256"),
        ("long enough 1", "long enough 2", "not the same"),
        ("KIM@example.org", "KIM@example.org", "your name"),
        ("kim of Support", "kim of Support", "your name"),
    ],
)
def test_unfit_passwords_are_refused_with_the_reason(
    password: str, again: str, problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem) as refused:
        checked_password(password, again, KIM)
    assert password not in refused.value.message


def test_twelve_characters_are_enough() -> None:
    assert checked_password("twelve chars", "twelve chars", KIM).reveal() == "twelve chars"


def test_the_wait_ends_when_the_first_of_the_counted_failures_is_forgotten() -> None:
    failures = [NOW, NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)]
    now = NOW + timedelta(minutes=3)
    assert wait_after_failures(failures, 4, now) == timedelta(0)
    assert wait_after_failures(failures, 3, now) == FAILURES_COUNTED_FOR - timedelta(minutes=3)
    assert wait_after_failures(failures, 2, now) == FAILURES_COUNTED_FOR - timedelta(minutes=2)
    assert wait_after_failures(failures, 3, NOW + FAILURES_COUNTED_FOR) == timedelta(0)


def test_one_address_cannot_try_every_user() -> None:
    throttle = Throttle()
    for number in range(FAILURES_PER_ADDRESS):
        assert not throttle.begin(f"user{number}@example.org", "192.0.2.1", NOW)
    assert throttle.begin("another@example.org", "192.0.2.1", NOW)
    assert not throttle.begin("another@example.org", "192.0.2.2", NOW)


def test_all_addresses_of_an_ipv6_network_count_as_one() -> None:
    throttle = Throttle()
    for number in range(FAILURES_PER_USER):
        assert not throttle.begin("Kim@example.org", f"2001:db8::{number}", NOW)
    assert throttle.begin("kim@example.org", "2001:db8::ffff", NOW)
    assert not throttle.begin("kim@example.org", "2001:db8:0:1::1", NOW)


def test_a_success_takes_back_the_users_failures_and_one_of_the_address() -> None:
    throttle = Throttle()
    for _ in range(FAILURES_PER_USER):
        throttle.begin("kim@example.org", "192.0.2.1", NOW)
    throttle.succeeded("kim@example.org", "192.0.2.1")
    assert not throttle.begin("kim@example.org", "192.0.2.1", NOW)


@pytest.mark.parametrize(
    ("fetch_site", "origin", "is_ours"),
    [
        ("same-origin", OWN, True),
        ("same-origin", None, True),
        (None, OWN, True),
        (None, None, False),
        (None, "null", False),
        (None, "http://panel.example.org", False),
        ("same-site", OWN, False),
        ("cross-site", OWN, False),
        ("none", None, False),
    ],
)
def test_a_form_is_ours_by_the_browsers_own_word(
    fetch_site: str | None, origin: str | None, is_ours: bool
) -> None:
    assert comes_from_our_pages(fetch_site, origin, OWN) is is_ours
