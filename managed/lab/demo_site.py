"""What the demo's customer has on the server: a small web site, and a database with rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import httpx

from managed.domain.connections import Endpoint
from managed.domain.errors import CommandFailed
from managed.ports import RemoteShell

_PACKAGES: Final = ("nginx-light", "postgresql")
_APT: Final = (
    "env",
    "DEBIAN_FRONTEND=noninteractive",
    "apt-get",
    "-o",
    "DPkg::Lock::Timeout=300",
    "-qq",
    "-y",
)
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Corner bakery</title></head>
<body><h1>Corner bakery</h1><p>Open from six. Today's bread is in the database.</p></body></html>
"""
_ROWS_SQL: Final = """
CREATE TABLE orders (id integer PRIMARY KEY, customer text NOT NULL, loaves integer NOT NULL);
INSERT INTO orders
SELECT n, 'customer ' || md5(n::text), n % 7 + 1 FROM generate_series(1, 1000) AS n;
"""
_CONTENT_SQL: Final = "SELECT id, customer, loaves FROM orders ORDER BY id"
_INSTALL_SECONDS: Final = 1800


@dataclass(frozen=True)
class SiteContent:
    """What visitors see and what the database holds, as digests; `rows` counts the orders."""

    page_sha256: str
    orders_sha256: str
    rows: int

    def as_json(self) -> dict[str, str | int]:
        return {
            "page_sha256": self.page_sha256,
            "orders_sha256": self.orders_sha256,
            "rows": self.rows,
        }


def install_site(shell: RemoteShell, endpoint: Endpoint) -> None:
    """Install web server and database from the distribution and fill them."""
    _run(shell, endpoint, *_APT, "update")
    _run(shell, endpoint, *_APT, "install", "--no-install-recommends", *_PACKAGES)
    shell.write_file(endpoint, "/var/www/html/index.html", _PAGE.encode(), 0o644)
    _run(shell, endpoint, "systemctl", "enable", "--now", "nginx", "postgresql")
    _psql(shell, endpoint, "postgres", "CREATE DATABASE bakery")
    _psql(shell, endpoint, "bakery", _ROWS_SQL)


def site_content(shell: RemoteShell, endpoint: Endpoint, url: str) -> SiteContent:
    """Read the page from outside and the rows from the database."""
    try:
        page = httpx.get(url, timeout=30).raise_for_status().content
    except httpx.HTTPError as error:
        raise CommandFailed(f"the web site at {url} does not answer: {error}") from error
    rows = _psql(shell, endpoint, "bakery", _CONTENT_SQL)
    return SiteContent(
        page_sha256=hashlib.sha256(page).hexdigest(),
        orders_sha256=hashlib.sha256(rows.encode()).hexdigest(),
        rows=len(rows.splitlines()),
    )


def _psql(shell: RemoteShell, endpoint: Endpoint, database: str, sql: str) -> str:
    command = ("runuser", "-u", "postgres", "--", "psql", "-qAt", "-v", "ON_ERROR_STOP=1", database)
    result = shell.run(endpoint, command, stdin=sql.encode(), timeout=300)
    if result.exit_status != 0:
        raise CommandFailed(f"psql failed: {result.stderr[-500:]}")
    return result.stdout


def _run(shell: RemoteShell, endpoint: Endpoint, *command: str) -> None:
    result = shell.run(endpoint, command, timeout=_INSTALL_SECONDS)
    if result.exit_status != 0:
        raise CommandFailed(
            f"{' '.join(command[-4:])} ended with status {result.exit_status}: "
            f"{(result.stderr or result.stdout)[-800:]}"
        )
