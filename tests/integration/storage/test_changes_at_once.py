"""Two people who change different fields of one thing at the same moment both have their way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy import Engine as Database

from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.jobs import JobKind
from managed.domain.windows import Window, WindowOwner
from managed.storage.customers import Customers
from managed.storage.database import writing
from managed.storage.windows import Windows
from tests.support.jobs import START

WINDOW = Window(
    "w-1", WindowOwner.PLAN, "p-1", JobKind.PATCH, "FREQ=DAILY", "UTC", 60, date(2026, 1, 1), START
)


@pytest.fixture
def stored(database: Database) -> Database:
    with writing(database) as connection:
        customers = Customers(database)
        customers.add(connection, Customer("c-1", "Anna", "anna@example.org"), START)
        customers.add_plan(connection, Plan("p-1", "plus", PlanKind.MANAGED), START)
        Windows(database).add(connection, WINDOW)
    return database


def customer(database: Database) -> tuple[Callable[..., Any], Callable[..., Any], str]:
    return Customers(database).locked, Customers(database).change, "c-1"


def plan(database: Database) -> tuple[Callable[..., Any], Callable[..., Any], str]:
    def change(connection: Connection, changed: Plan) -> None:
        Customers(database).change_plan(connection, changed, START)

    return Customers(database).locked_plan, change, "p-1"


def window(database: Database) -> tuple[Callable[..., Any], Callable[..., Any], str]:
    return Windows(database).locked, Windows(database).change, "w-1"


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        (customer, {"name": "Anna Ltd"}, {"email": "office@example.org"}),
        (plan, {"name": "other"}, {"kind": PlanKind.UNMANAGED}),
        (window, {"minutes": 90}, {"zone": "Europe/Berlin"}),
    ],
)
def test_neither_change_is_lost(
    stored: Database,
    kind: Callable[[Database], tuple[Callable[..., Any], Callable[..., Any], str]],
    first: dict[str, Any],
    second: dict[str, Any],
) -> None:
    locked, change, thing_id = kind(stored)
    has_begun = threading.Event()

    def change_second() -> None:
        has_begun.set()
        with writing(stored) as connection:
            change(connection, replace(locked(connection, thing_id), **second))

    def changed_first(connection: Connection) -> threading.Thread:
        found = locked(connection, thing_id)
        other = threading.Thread(target=change_second)
        other.start()
        assert has_begun.wait(30)
        change(connection, replace(found, **first))
        return other

    with writing(stored) as connection:
        other = changed_first(connection)
    other.join(30)
    with writing(stored) as connection:
        found = locked(connection, thing_id)
    assert {name: getattr(found, name) for name in (*first, *second)} == {**first, **second}
