"""Two people who add a notification target at the same moment."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import Engine as Database

from managed.domain.customers import Customer
from managed.domain.errors import AlreadyExists
from managed.domain.notifications import Occasion, Target, TargetKind
from managed.storage.customers import Customers
from managed.storage.database import writing
from managed.storage.notification_targets import NotificationTargets
from tests.integration.storage.test_submissions import beside
from tests.support.jobs import START, JobBench

ANNA = Customer("c-1", "Anna", "anna@example.org")


def add(database: Database, customer_id: str | None) -> None:
    target = Target(
        target_id=str(uuid.uuid4()),
        kind=TargetKind.EMAIL,
        address="ops@example.org",
        occasions=frozenset(Occasion),
        customer_id=customer_id,
        created_at=START,
    )
    with writing(database) as connection:
        NotificationTargets(database).add(connection, target)


@pytest.mark.parametrize("customer_id", [None, ANNA.customer_id], ids=["staff", "customer"])
def test_of_two_equal_targets_at_once_one_is_stored(
    database: Database, database_url: str, customer_id: str | None
) -> None:
    with writing(database) as connection:
        Customers(database).add(connection, ANNA, START)
    first, second = beside(
        JobBench(database),
        database_url,
        "before its commit",
        lambda other: add(other, customer_id),
        lambda: add(database, customer_id),
    )
    assert first is None
    assert isinstance(second, AlreadyExists)
    assert len(NotificationTargets(database).find()) == 1
