"""Finding servers by how a name or an address begins, quickly however many there are."""

from __future__ import annotations

import re

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    func,
    literal,
    select,
    union,
)

from managed.domain.servers import Server
from managed.storage.database import reading
from managed.storage.inventory import PRESENT
from managed.storage.rows import server_from_row
from managed.storage.tables import customers, servers

# Measured by bench.api: with 300, a beginning that hundreds of customers share had thousands of
# servers fetched and sorted for a page of ten, which took twice as long.
_FEW_CUSTOMERS = 50
_LAST_CHARACTER = "\U0010ffff"


def search_servers(
    engine: Engine,
    text: str,
    *,
    customer_id: str | None = None,
    after_name: str = "",
    limit: int = 50,
) -> list[Server]:
    """Servers by name, those after `after_name`, whose name, address or customer's name begins
    with the text, in whatever case; only this customer's when one is given.
    """
    with reading(engine) as connection:
        # Each by an index of its own and no longer than the page: an OR of them would be neither.
        conditions = (
            _begins(connection, servers.c.name, text),
            _begins(connection, servers.c.address, text),
            _is_of_customer(connection, text),
        )
        whole = [_page(condition, after_name, limit) for condition in conditions]
        if customer_id is not None:
            whole = [page.where(servers.c.customer_id == customer_id) for page in whole]
        pages = [page.subquery() for page in whole]
        found = union(*(select(page) for page in pages)).subquery()
        query = select(servers).join(found, found.c.id == servers.c.id)
        rows = connection.execute(query.order_by(servers.c.name).limit(limit))
        return [server_from_row(row) for row in rows]


def _is_of_customer(connection: Connection, text: str) -> ColumnElement[bool]:
    """Of few customers the servers are looked up; of many, the walk through all servers by name
    soon comes upon enough of them.
    """
    found = select(customers.c.id).where(_begins(connection, func.lower(customers.c.name), text))
    few = connection.scalars(found.limit(_FEW_CUSTOMERS + 1)).all()
    if len(few) <= _FEW_CUSTOMERS:
        return servers.c.customer_id.in_(few)
    return servers.c.customer_id.in_(found)


def _page(condition: ColumnElement[bool], after_name: str, limit: int) -> Select[tuple[str, str]]:
    return (
        select(servers.c.id, servers.c.name)
        .where(PRESENT, servers.c.name > after_name, condition)
        .order_by(servers.c.name)
        .limit(limit)
    )


def _begins(connection: Connection, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Both sides in lower case as the database has it; in the form for which it uses an index."""
    if connection.dialect.name == "postgresql":
        pattern = re.sub(r"([\\%_])", r"\\\1", text) + "%"
        return column.like(func.lower(pattern))
    begin = func.lower(literal(text))
    return and_(column >= begin, column < begin.concat(_LAST_CHARACTER))
