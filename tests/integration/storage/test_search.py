"""Servers are found by how their name, their address or their customer's name begins."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event, update

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
def test_sqlite_walks_through_no_table(database: Database) -> None:
    """PostgreSQL chooses by the size of tables: that is measured by bench.api."""
    if database.dialect.name == "postgresql":
        pytest.skip("six servers are quicker read than looked up")
    asked: list[tuple[str, Any]] = []

    def note(*given: Any) -> None:
        asked.append((given[2], given[3]))

    event.listen(database, "before_cursor_execute", note)
    search_servers(database, "sho")
    event.remove(database, "before_cursor_execute", note)
    queries = [one for one in asked if one[0].startswith("SELECT")]
    assert len(queries) == 2
    with database.connect() as connection:
        for statement, parameters in queries:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row.detail for row in plan]
            tables = [step for step in steps if "servers" in step or "customers" in step]
            assert tables
            assert all("USING" in step for step in tables), tables
