"""Servers are found by how their name, their address or their customer's name begins."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import text, update

from managed.domain.customers import Customer
from managed.domain.servers import ServerStatus
from managed.storage.customers import Customers
from managed.storage.database import writing
from managed.storage.search import search_servers
from managed.storage.tables import servers
from tests.support.jobs import START, JobBench


@pytest.fixture
def names(database: Database) -> list[str]:
    """Six servers with addresses of their own, two of them a customer's."""
    bench = JobBench(database)
    found = ["one", "shop-1", "shop-2", "sho", "web-shop", "zoo"]
    ids = [bench.server_id, *(bench.add_server(name) for name in found[1:])]
    customer_id = str(uuid.uuid4())
    with writing(database) as connection:
        for number, server_id in enumerate(ids):
            is_this = update(servers).where(servers.c.id == server_id)
            connection.execute(is_this.values(address=f"10.0.{number}.1"))
        customer = Customer(customer_id, "Sho%_ Ltd", "s@example.org")
        Customers(database).add(connection, customer, START)
        of_customer = update(servers).where(servers.c.name.in_(["one", "shop-2"]))
        connection.execute(of_customer.values(customer_id=customer_id))
    return found


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("begins", "found"),
    [
        ("sho", ["one", "sho", "shop-1", "shop-2"]),
        ("SHOP-", ["shop-1", "shop-2"]),
        ("sho%", ["one", "shop-2"]),
        ("sho%_ LTD", ["one", "shop-2"]),
        ("sho_", []),
        ("%", []),
        ("10.0.4", ["web-shop"]),
        ("10.0.", ["one", "sho", "shop-1", "shop-2", "web-shop", "zoo"]),
        ("hop", []),
        ("zoo\\", []),
        ("ü", []),
    ],
)
def test_what_begins_so_is_found(database: Database, begins: str, found: list[str]) -> None:
    assert [server.name for server in search_servers(database, begins)] == found


@pytest.mark.usefixtures("names")
def test_pages_follow_each_other(database: Database) -> None:
    pages = []
    after = ""
    while page := search_servers(database, "sho", after_name=after, limit=3):
        pages.append([server.name for server in page])
        after = page[-1].name
    assert pages == [["one", "sho", "shop-1"], ["shop-2"]]


@pytest.mark.usefixtures("names")
def test_the_deleted_are_not_found(database: Database) -> None:
    with writing(database) as connection:
        connection.execute(update(servers).values(status=ServerStatus.DELETED.value))
    assert search_servers(database, "sho") == []


@pytest.mark.usefixtures("names")
def test_every_way_of_finding_has_an_index(database: Database) -> None:
    """With statistics of many rows the planner would choose it; here it is made to."""
    with writing(database) as connection:
        if database.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        for table, condition in (
            ("servers", "name LIKE 'sho%'"),
            ("servers", "address LIKE '10.0%'"),
            ("customers", "lower(name) LIKE 'sho%'"),
        ):
            if database.dialect.name == "sqlite":
                column = condition.partition(" ")[0]
                condition = f"{column} >= 'a' AND {column} < 'b'"
                explain = "EXPLAIN QUERY PLAN"
            else:
                explain = "EXPLAIN"
            query = text(f"{explain} SELECT * FROM {table} WHERE {condition}")  # noqa: S608
            plan = "\n".join(str(row) for row in connection.execute(query))
            assert "_begin" in plan, plan
