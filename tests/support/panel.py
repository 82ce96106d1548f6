"""Somebody at the panel: users with passwords, and a client that behaves as a browser would."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from fastapi.testclient import TestClient

from api.panel.passwords import hashed
from managed.domain.access import Role, User
from managed.domain.customers import Customer
from managed.domain.secrets import Secret
from managed.domain.servers import Server
from managed.domain.sign_in import new_link_token
from managed.storage.database import writing
from managed.wiring import Installation, utc_now

PASSWORD = "correct horse battery staple"
ORIGIN = "http://testserver"


def add_user(
    installation: Installation,
    name: str,
    role: Role = Role.SUPPORT,
    customer_id: str | None = None,
) -> User:
    """A user with PASSWORD, set by an invitation as the panel does."""
    user = User(
        str(uuid.uuid4()), f"{name.lower()}@example.org", name, role, customer_id, utc_now()
    )
    access, panel = installation.access, installation.panel_access
    with writing(installation.database) as connection:
        access.add_user(connection, user)
        invitation = panel.invite(connection, user, new_link_token(), utc_now())
        panel.set_password(connection, invitation, hashed(Secret(PASSWORD)), utc_now())
    return user


def add_customer(installation: Installation, name: str, *servers: Server) -> Customer:
    customer = Customer(str(uuid.uuid4()), name, f"{name.lower()}@example.org")
    with writing(installation.database) as connection:
        installation.customers.add(connection, customer, utc_now())
        for server in servers:
            installation.customers.place(connection, server, customer.customer_id, None, utc_now())
    return customer


@dataclass(frozen=True)
class Browser:
    """Sends forms as browsers do: with the origin of the page, and its hidden fields."""

    http: TestClient

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers, follow_redirects=False)

    def post(
        self, path: str, fields: dict[str, str] | None = None, **headers: str
    ) -> httpx.Response:
        given = {"Origin": ORIGIN, **headers}
        return self.http.post(path, data=fields or {}, headers=given, follow_redirects=False)

    def sign_in(self, user: User, password: str = PASSWORD, **fields: str) -> httpx.Response:
        return self.post("/panel/sign-in", {"email": user.email, "password": password, **fields})

    def csrf(self, path: str = "/panel/servers") -> str:
        """What the forms of a page bring."""
        return hidden(self.get(path).text, "csrf")


def hidden(page: str, name: str) -> str:
    """The value of a page's hidden field."""
    found = re.search(rf'name="{name}" value="([^"]+)"', page)
    assert found is not None, f"no field {name} in {page}"
    return found[1]


@contextmanager
def browser(app: object) -> Iterator[Browser]:
    """A browser of its own, where nobody is signed in yet; a defect of ours is an answer."""
    with TestClient(app, raise_server_exceptions=False) as http:  # type: ignore[arg-type]
        yield Browser(http)
