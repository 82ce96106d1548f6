"""Who may do what; tokens; the chain of the audit log."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed.domain.access import Permission, Principal, Role, User, permission_for
from managed.domain.audit import FIRST_HASH, AuditEntry, Deed, chain_problem, chained
from managed.domain.errors import Forbidden, Unauthorized
from managed.domain.jobs import JobKind
from managed.domain.tokens import (
    ApiToken,
    granted_scopes,
    new_token,
    principal_of,
    token_hash,
    token_id_of,
)

NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)
KIM = User("u1", "kim@example.org", "Kim", Role.SUPPORT, None, NOW)
ANNA = User("u2", "anna@example.org", "Anna", Role.CUSTOMER, "c1", NOW)
TOKEN = ApiToken("0a1b2c3d4e5f", "u1", "a token", NOW, NOW + timedelta(days=1))


def principal(role: Role, *scopes: Permission, customer_id: str | None = None) -> Principal:
    return Principal("u1", "kim@example.org", role, customer_id, frozenset(scopes) or None)


def test_a_customer_sees_what_is_theirs_and_staff_sees_all() -> None:
    anna = principal(Role.CUSTOMER, customer_id="c1")
    assert [anna.sees(owner) for owner in ("c1", "c2", None)] == [True, False, False]
    assert anna.tenant == "c1"
    kim = principal(Role.SUPPORT)
    assert all(kim.sees(owner) for owner in ("c1", None))
    assert kim.tenant is None


def test_scopes_take_away_and_never_give() -> None:
    narrow = principal(Role.SUPPORT, Permission.JOBS_READ, Permission.USERS)
    assert narrow.permissions == {Permission.JOBS_READ}
    with pytest.raises(Forbidden, match="role support"):
        narrow.require(Permission.USERS)
    with pytest.raises(Forbidden, match="scope pause"):
        narrow.require(Permission.PAUSE)


def test_customers_ask_for_what_loses_no_data() -> None:
    asked = {kind for kind in JobKind if permission_for(kind) is Permission.JOBS_ASK}
    assert asked == {JobKind.POWER, JobKind.BACKUP, JobKind.CHECK}


def test_a_token_names_its_id_and_is_never_the_same() -> None:
    first, second = new_token(), new_token()
    assert token_id_of(first[1].reveal()) == first[0] != second[0]
    assert token_hash(first[1].reveal()) != token_hash(second[1].reveal())
    assert first[1].reveal() not in repr(first)


@pytest.mark.parametrize(
    "text",
    ["", "mgd_", "mgd_0a1b2c3d4e5f_", "x" * 10_000, "mgd_0A1B2C3D4E5F_" + "a" * 43, "é" * 60],
)
def test_what_has_not_the_form_of_a_token_is_none(text: str) -> None:
    assert token_id_of(text) is None


def test_an_ended_token_opens_nothing_and_says_why() -> None:
    assert principal_of(KIM, TOKEN, NOW).name == "kim@example.org"
    ended = [
        (KIM, TOKEN, TOKEN.expires_at, "expired on 2026-11-26"),
        (KIM, replace(TOKEN, revoked_at=NOW), NOW, "revoked on 2026-11-25"),
        (replace(KIM, disabled_at=NOW), TOKEN, NOW, "disabled on 2026-11-25"),
    ]
    for user, token, now, why in ended:
        with pytest.raises(Unauthorized, match=why):
            principal_of(user, token, now)


def test_a_token_never_makes_a_wider_one() -> None:
    whole, narrow = principal(Role.SUPPORT), principal(Role.SUPPORT, Permission.TOKENS)
    assert granted_scopes(whole, KIM, None) is None
    assert granted_scopes(narrow, KIM, None) == {Permission.TOKENS}
    with pytest.raises(Forbidden):
        granted_scopes(narrow, KIM, frozenset({Permission.PAUSE}))
    admin = Principal("u9", "joe@example.org", Role.ADMIN)
    assert granted_scopes(admin, ANNA, None) is None
    with pytest.raises(Forbidden):
        granted_scopes(admin, ANNA, frozenset({Permission.PAUSE}))


def test_a_limited_token_makes_nobody_a_wider_one() -> None:
    narrow = Principal(
        "u9", "joe@example.org", Role.ADMIN, None, frozenset({Permission.USERS, Permission.TOKENS})
    )
    assert granted_scopes(narrow, KIM, None) == {Permission.TOKENS}
    with pytest.raises(Forbidden):
        granted_scopes(narrow, KIM, frozenset({Permission.PAUSE}))
    for role in Role:
        with pytest.raises(Forbidden):
            narrow.require_role(role)
    Principal("u9", "joe@example.org", Role.ADMIN).require_role(Role.ADMIN)


def chain(length: int) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    previous = FIRST_HASH
    for number in range(1, length + 1):
        deed = Deed(NOW, "kim", "submit_job", f"s{number}", "ticket 7", {"kind": "patch"})
        entries.append(chained(number, deed, previous))
        previous = entries[-1].hash
    return entries


def head(entries: list[AuditEntry]) -> tuple[int, str]:
    return (entries[-1].number, entries[-1].hash) if entries else (0, FIRST_HASH)


@given(st.integers(0, 6))
def test_a_whole_log_has_no_problem(length: int) -> None:
    assert chain_problem(chain(length), head(chain(length))) is None


@given(
    st.integers(0, 4),
    st.sampled_from(["actor", "action", "subject", "reason", "at", "data"]),
)
def test_no_entry_can_be_changed(position: int, field: str) -> None:
    entries = chain(5)
    changes = {"at": NOW + timedelta(microseconds=1), "data": {"kind": "delete"}}
    deed = replace(entries[position].deed, **{field: changes.get(field, "other")})
    changed = [*entries]
    changed[position] = replace(entries[position], deed=deed)
    assert chain_problem(changed, head(entries)) == (
        f"entry {position + 1} was changed after it was written"
    )
    # With its hash computed anew it no longer carries the next one, or the head.
    changed[position] = chained(position + 1, deed, entries[position].previous_hash)
    assert chain_problem(changed, head(entries)) is not None


@given(st.integers(0, 4))
def test_no_entry_can_be_left_out_put_elsewhere_or_cut_off(position: int) -> None:
    entries = chain(5)
    assert chain_problem(entries[:position] + entries[position + 1 :], head(entries)) is not None
    assert chain_problem(entries[:position], head(entries)) is not None
    swapped = [*entries]
    swapped[position], swapped[position - 1] = swapped[position - 1], swapped[position]
    assert chain_problem(swapped, head(entries)) is not None


def test_the_hash_does_not_depend_on_the_zone_of_the_time() -> None:
    deed = Deed(NOW, "kim", "submit_job", "s1")
    moved = replace(deed, at=NOW.astimezone(tz=None))
    assert chained(1, deed, FIRST_HASH).hash == chained(1, moved, FIRST_HASH).hash
