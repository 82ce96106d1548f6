"""Users, tokens and the audit log on both databases."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError

from managed.domain.access import Permission, Role, User
from managed.domain.audit import Deed, chain_problem
from managed.domain.errors import AlreadyExists, Conflict, NotFound
from managed.domain.tokens import ApiToken, new_token
from managed.storage import audit
from managed.storage.access import Access
from managed.storage.audit import AuditLog
from managed.storage.database import DatabaseUnavailable, writing
from managed.storage.tables import api_tokens, audit_log
from tests.support.jobs import START

KIM = User("u1", "kim@example.org", "Kim", Role.SUPPORT, None, START)


def with_token(database: Database, **fields: Any) -> tuple[Access, ApiToken, str]:
    access = Access(database)
    token_id, text = new_token()
    token = ApiToken(token_id, "u1", "a token", START, START + timedelta(days=1), **fields)
    with writing(database) as connection:
        access.add_user(connection, KIM)
        access.add_token(connection, token, text)
    return access, token, text.reveal()


def test_a_token_opens_what_is_its_users_and_only_whole(database: Database) -> None:
    access, token, text = with_token(database, scopes=frozenset({Permission.JOBS_READ}))
    user, found = access.opened_by(text, START) or pytest.fail("it opens nothing")
    assert (user, found) == (KIM, token)
    other = new_token()[1].reveal()
    assert access.opened_by(other, START) is None
    assert access.opened_by(text[:-1] + ("a" if text[-1] != "a" else "b"), START) is None
    assert access.opened_by("", START) is None


def test_the_database_does_not_hold_the_token(database: Database) -> None:
    _, _, text = with_token(database)
    with database.connect() as connection:
        row = connection.execute(select(api_tokens)).one()
    assert text not in str(row)
    assert text[17:] not in str(row)


def test_use_is_noted_now_and_then(database: Database) -> None:
    access, token, text = with_token(database)
    for minutes in (0, 5, 11):
        access.opened_by(text, START + timedelta(minutes=minutes))
        noted = access.token(token.token_id).last_used_at
        assert noted == START + timedelta(minutes=0 if minutes < 10 else 11)


def test_a_revoked_token_is_revoked_once(database: Database) -> None:
    access, token, _ = with_token(database)
    with writing(database) as connection:
        access.revoke(connection, token, START)
    assert access.token(token.token_id).revoked_at == START
    with pytest.raises(Conflict), writing(database) as connection:
        access.revoke(connection, token, START)


def test_an_address_belongs_to_one_user(database: Database) -> None:
    access, *_ = with_token(database)
    assert access.user("KIM@example.org") == access.user("u1") == KIM
    with pytest.raises(AlreadyExists), writing(database) as connection:
        access.add_user(connection, User("u2", KIM.email, "K", Role.ADMIN, None, START))
    with pytest.raises(NotFound):
        access.user("nobody")


@pytest.mark.parametrize(("role", "customer"), [(Role.CUSTOMER, None), (Role.ADMIN, "c1")])
def test_the_database_refuses_customers_without_and_staff_with_one(
    database: Database, role: Role, customer: str | None
) -> None:
    user = User("u3", "x@example.org", "X", role, customer, START)
    with pytest.raises((AlreadyExists, DatabaseUnavailable)), writing(database) as connection:
        Access(database).add_user(connection, user)


def record(database: Database, subject: str) -> None:
    with writing(database) as connection:
        audit.record(connection, Deed(START, "kim", "submit_job", subject, "", {"n": 1}))


def test_entries_are_chained_also_when_many_write_at_once(database: Database) -> None:
    threads = [
        threading.Thread(target=lambda: [record(database, f"s{n}") for n in range(5)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    log = AuditLog(database)
    entries = log.after(0, limit=100)
    assert len(entries) == 20
    assert chain_problem(entries, log.head()) is None


def test_a_deed_that_was_rolled_back_leaves_no_entry(database: Database) -> None:
    record(database, "s1")
    try:
        with writing(database) as connection:
            audit.record(connection, Deed(START, "kim", "submit_job", "s2"))
            raise RuntimeError
    except RuntimeError:
        pass
    record(database, "s3")
    assert [entry.deed.subject for entry in AuditLog(database).after(0)] == ["s1", "s3"]


def test_the_database_lets_no_entry_be_changed_or_removed(database: Database) -> None:
    record(database, "s1")
    for statement in (update(audit_log).values(actor="joe"), delete(audit_log)):
        refused = pytest.raises((DBAPIError, DatabaseUnavailable))
        with refused as raised, writing(database) as connection:
            connection.execute(statement)
        assert "append-only" in f"{raised.value} {raised.value.__cause__}"
    assert [entry.deed.actor for entry in AuditLog(database).after(0)] == ["kim"]


def test_entries_are_found_by_what_they_are_about_newest_first(database: Database) -> None:
    for subject in ("s1", "s2", "s1"):
        record(database, subject)
    log = AuditLog(database)
    assert [entry.number for entry in log.find(subject="s1")] == [3, 1]
    assert [entry.number for entry in log.find(before=3, limit=1)] == [2]
