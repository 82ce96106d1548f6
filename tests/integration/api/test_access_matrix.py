"""Every route, for every role and tenant: who is let in, and what is there for whom."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient

from api.auth import GuardedRoute, permission_of
from managed.domain.access import Permission, Role, User
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.jobs import JobKind
from managed.domain.rescue import RescueSession
from managed.domain.servers import Server, ServerStatus
from managed.domain.tokens import ApiToken, new_token
from managed.domain.windows import Opening
from managed.storage.database import writing
from managed.storage.windows import MissedWindow
from managed.wiring import utc_now
from tests.integration.api.conftest import ApiBench

P = Permission


class Tenant(Enum):
    """What a route shows to a customer."""

    OF_SERVER = "a thing of one server: not there for other customers"
    LIST = "a list: holds only what is theirs"
    OWN = "what is the caller's own"
    NONE = "nothing of any customer's, or for staff only"


ROUTES: Final[dict[tuple[str, str], tuple[Permission | None, Tenant]]] = {
    ("POST", "/v1/servers"): (P.SERVERS_WRITE, Tenant.NONE),
    ("POST", "/v1/servers/enrol"): (P.SERVERS_WRITE, Tenant.NONE),
    ("POST", "/v1/servers/enrol/csv"): (P.SERVERS_WRITE, Tenant.NONE),
    ("GET", "/v1/servers"): (P.SERVERS_READ, Tenant.LIST),
    ("GET", "/v1/servers/{server}"): (P.SERVERS_READ, Tenant.OF_SERVER),
    ("PATCH", "/v1/servers/{server}"): (P.SERVERS_WRITE, Tenant.OF_SERVER),
    ("DELETE", "/v1/servers/{server}"): (P.SERVERS_DELETE, Tenant.OF_SERVER),
    ("PUT", "/v1/servers/{server}/placement"): (P.CUSTOMERS_WRITE, Tenant.OF_SERVER),
    ("GET", "/v1/servers/{server}/snapshots"): (P.SERVERS_READ, Tenant.OF_SERVER),
    ("GET", "/v1/servers/{server}/snapshots/{snapshot_id}/paths"): (
        P.SERVERS_READ,
        Tenant.OF_SERVER,
    ),
    ("GET", "/v1/rescue-sessions"): (P.SERVERS_READ, Tenant.LIST),
    ("GET", "/v1/rescue-sessions/{session_id}"): (P.SERVERS_READ, Tenant.OF_SERVER),
    ("POST", "/v1/servers/{server}/jobs"): (P.JOBS_ASK, Tenant.OF_SERVER),
    ("POST", "/v1/bulk/jobs"): (P.JOBS_ASK, Tenant.LIST),
    ("GET", "/v1/host-key"): (P.SERVERS_WRITE, Tenant.NONE),
    ("GET", "/v1/jobs"): (P.JOBS_READ, Tenant.LIST),
    ("GET", "/v1/jobs/{job_id}"): (P.JOBS_READ, Tenant.OF_SERVER),
    ("POST", "/v1/jobs/{job_id}/cancel"): (P.JOBS_ASK, Tenant.OF_SERVER),
    ("GET", "/v1/jobs/{job_id}/events"): (P.JOBS_READ, Tenant.OF_SERVER),
    ("POST", "/v1/customers"): (P.CUSTOMERS_WRITE, Tenant.NONE),
    ("GET", "/v1/customers"): (P.CUSTOMERS_READ, Tenant.NONE),
    ("GET", "/v1/customers/{customer}"): (P.CUSTOMERS_READ, Tenant.NONE),
    ("PATCH", "/v1/customers/{customer}"): (P.CUSTOMERS_WRITE, Tenant.NONE),
    ("DELETE", "/v1/customers/{customer}"): (P.CUSTOMERS_WRITE, Tenant.NONE),
    ("POST", "/v1/plans"): (P.CUSTOMERS_WRITE, Tenant.NONE),
    ("GET", "/v1/plans"): (P.CUSTOMERS_READ, Tenant.NONE),
    ("GET", "/v1/plans/{plan}"): (P.CUSTOMERS_READ, Tenant.NONE),
    ("PATCH", "/v1/plans/{plan}"): (P.CUSTOMERS_WRITE, Tenant.NONE),
    ("DELETE", "/v1/plans/{plan}"): (P.CUSTOMERS_WRITE, Tenant.NONE),
    ("POST", "/v1/windows"): (P.WINDOWS_WRITE, Tenant.NONE),
    ("GET", "/v1/windows"): (P.WINDOWS_READ, Tenant.LIST),
    ("GET", "/v1/windows/{window_id}"): (P.WINDOWS_READ, Tenant.OF_SERVER),
    ("PATCH", "/v1/windows/{window_id}"): (P.WINDOWS_WRITE, Tenant.OF_SERVER),
    ("DELETE", "/v1/windows/{window_id}"): (P.WINDOWS_WRITE, Tenant.OF_SERVER),
    ("GET", "/v1/missed-windows"): (P.WINDOWS_READ, Tenant.LIST),
    ("GET", "/v1/surveys"): (P.WINDOWS_READ, Tenant.LIST),
    ("GET", "/v1/pause"): (P.PAUSE, Tenant.NONE),
    ("POST", "/v1/pause"): (P.PAUSE, Tenant.NONE),
    ("DELETE", "/v1/pause"): (P.PAUSE, Tenant.NONE),
    ("POST", "/v1/nodes"): (P.NODES_WRITE, Tenant.NONE),
    ("GET", "/v1/nodes"): (P.NODES_READ, Tenant.NONE),
    ("GET", "/v1/nodes/{node_id}"): (P.NODES_READ, Tenant.NONE),
    ("GET", "/v1/me"): (None, Tenant.OWN),
    ("POST", "/v1/users"): (P.USERS, Tenant.NONE),
    ("GET", "/v1/users"): (P.USERS, Tenant.NONE),
    ("GET", "/v1/users/{user}"): (P.USERS, Tenant.NONE),
    ("POST", "/v1/users/{user}/disable"): (P.USERS, Tenant.NONE),
    ("POST", "/v1/users/{user}/enable"): (P.USERS, Tenant.NONE),
    ("POST", "/v1/users/{user}/invitation"): (P.USERS, Tenant.NONE),
    ("POST", "/v1/tokens"): (P.TOKENS, Tenant.OWN),
    ("GET", "/v1/tokens"): (P.TOKENS, Tenant.OWN),
    ("DELETE", "/v1/tokens/{token_id}"): (P.TOKENS, Tenant.OWN),
    ("POST", "/v1/notification-targets"): (P.NOTIFICATIONS_WRITE, Tenant.NONE),
    ("GET", "/v1/notification-targets"): (P.NOTIFICATIONS_READ, Tenant.NONE),
    ("GET", "/v1/notification-targets/{target_id}"): (P.NOTIFICATIONS_READ, Tenant.NONE),
    ("DELETE", "/v1/notification-targets/{target_id}"): (P.NOTIFICATIONS_WRITE, Tenant.NONE),
    ("POST", "/v1/notification-targets/{target_id}/test"): (P.NOTIFICATIONS_WRITE, Tenant.NONE),
    ("GET", "/v1/notifications"): (P.NOTIFICATIONS_READ, Tenant.NONE),
    ("GET", "/v1/requests"): (P.REQUESTS_READ, Tenant.NONE),
    ("GET", "/v1/requests/{request_id}"): (P.REQUESTS_READ, Tenant.NONE),
    ("POST", "/v1/requests/{request_id}/approve"): (P.REQUESTS_DECIDE, Tenant.NONE),
    ("POST", "/v1/requests/{request_id}/refuse"): (P.REQUESTS_DECIDE, Tenant.NONE),
    ("GET", "/v1/audit"): (P.AUDIT_READ, Tenant.NONE),
    ("GET", "/v1/audit/export"): (P.AUDIT_READ, Tenant.NONE),
    ("GET", "/v1/audit/head"): (P.AUDIT_READ, Tenant.NONE),
}

CUSTOMER: Final = {
    P.SERVERS_READ,
    P.JOBS_READ,
    P.JOBS_ASK,
    P.WINDOWS_READ,
    P.TOKENS,
}
SUPPORT: Final = CUSTOMER | {
    P.SERVERS_WRITE,
    P.JOBS_WORK,
    P.NODES_READ,
    P.CUSTOMERS_READ,
    P.WINDOWS_WRITE,
    P.PAUSE,
    P.REQUESTS_READ,
    P.REQUESTS_DECIDE,
    P.NOTIFICATIONS_READ,
    P.AUDIT_READ,
}
MAY: Final = {Role.CUSTOMER: CUSTOMER, Role.SUPPORT: SUPPORT, Role.ADMIN: set(P)}

BODIES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/v1/servers/{server}/jobs"): {"kind": "check"},
    ("POST", "/v1/bulk/jobs"): {"job": {"kind": "check"}, "servers": {"all": True}},
    ("PUT", "/v1/servers/{server}/placement"): {"customer": "Anna", "plan": None},
    ("POST", "/v1/tokens"): {"name": "a token"},
    ("POST", "/v1/pause"): {"reason": "a reason"},
    ("POST", "/v1/requests/{request_id}/refuse"): {"reason": "a reason"},
    ("POST", "/v1/customers"): {"name": "Cid", "email": "cid@example.org"},
    ("POST", "/v1/plans"): {"name": "another"},
}

# Which field of a list's items is a server's id, where it is called otherwise.
SERVER_IN: Final = {"/v1/servers": "id", "/v1/windows": "owner_id"}


@dataclass(frozen=True)
class Member:
    """A user with the text of a token of theirs."""

    user: User
    text: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.text}"}


@dataclass(frozen=True)
class World:
    """Two customers with a server each, and somebody of every role."""

    bench: ApiBench
    anna: Customer
    server: Server
    other: Server
    members: dict[str, Member]

    def member(self, name: str, role: Role, customer_id: str | None = None) -> Member:
        user = User(str(uuid.uuid4()), f"{name}@example.org", name, role, customer_id, utc_now())
        with writing(self.bench.installation.database) as connection:
            self.bench.installation.access.add_user(connection, user)
        return self.token(user)

    def token(self, user: User, **fields: Any) -> Member:
        token_id, text = new_token()
        now = utc_now()
        made = ApiToken(token_id, user.user_id, "of a test", now, now + timedelta(days=1))
        with writing(self.bench.installation.database) as connection:
            self.bench.installation.access.add_token(connection, replace(made, **fields), text)
        return Member(user, text.reveal())

    def address(self, path: str, caller: Member) -> str:
        """The path with things of the first customer's; what a request would use up is new."""
        makers: dict[str, Callable[[], str]] = {
            "{server}": lambda: self.server.name,
            "{job_id}": lambda: (
                self.bench.installation.queue.find(server_id=self.server.server_id)[0].job_id
            ),
            "{snapshot_id}": lambda: (
                self.bench.installation.catalogue.of_server(self.server.server_id)[0].snapshot_id
            ),
            "{session_id}": lambda: self.session(self.server),
            "{customer}": lambda: self.anna.customer_id,
            "{plan}": self.new_plan,
            "{window_id}": self.new_window,
            "{node_id}": lambda: "local",
            "{target_id}": self.new_target,
            "{request_id}": lambda: self.bench.add_request(self.server, self.anna.email),
            "{user}": lambda: self.members["customer"].user.email,
            "{token_id}": lambda: self.token(caller.user).text[4:16],
        }
        for name, make in makers.items():
            if name in path:
                path = path.replace(name, make())
        return path.replace("host-key", "host-key?address=127.0.0.1&port=1")

    def new_target(self) -> str:
        body = {"kind": "webhook", "address": f"https://hooks.invalid/{uuid.uuid4()}"}
        with TestClient(self.bench.app, headers=self.bench.headers) as operator:
            return str(operator.post("/v1/notification-targets", json=body).json()["id"])

    def session(self, server: Server) -> str:
        """One that has ended, so that the server can have jobs."""
        sessions = self.bench.installation.sessions
        found = sessions.find(server_id=server.server_id)
        if found:
            return found[0].session_id
        job = self.bench.installation.queue.find(server_id=server.server_id)[0]
        made = RescueSession(
            str(uuid.uuid4()),
            server.server_id,
            job.job_id,
            "ssh-ed25519 AAAA",
            ServerStatus.ACTIVE,
            utc_now(),
        )
        sessions.end(sessions.open(made).session_id, utc_now())
        return made.session_id

    def new_plan(self) -> str:
        plan = Plan(str(uuid.uuid4()), f"plan-{uuid.uuid4().hex}", PlanKind.MANAGED)
        with writing(self.bench.installation.database) as connection:
            self.bench.installation.customers.add_plan(connection, plan, utc_now())
        return plan.name

    def new_window(self) -> str:
        with TestClient(self.bench.app, headers=self.bench.headers) as operator:
            for window in operator.get("/v1/windows").json()["items"]:
                operator.delete(f"/v1/windows/{window['id']}")
        return self.add_window(self.server)

    def add_window(self, server: Server) -> str:
        body = {
            "owner": "server",
            "owner_id": server.name,
            "job_kind": "patch",
            "rule": "FREQ=DAILY",
        }
        with TestClient(self.bench.app, headers=self.bench.headers) as operator:
            return str(operator.post("/v1/windows", json=body).json()["id"])


@pytest.fixture
def world(bench: ApiBench, monkeypatch: pytest.MonkeyPatch) -> World:
    installation = bench.installation
    monkeypatch.setattr("managed.drivers.libvirt.registration._check_directory", lambda _: None)
    monkeypatch.setattr("managed.drivers.libvirt.registration._check_libvirt", lambda *_: None)
    servers = [bench.add_server("annas"), bench.add_server("beas")]
    customers = [Customer(str(uuid.uuid4()), n, f"{n}@example.org") for n in ("Anna", "Bea")]
    for server, customer in zip(servers, customers, strict=True):
        with writing(installation.database) as connection:
            installation.customers.add(connection, customer, utc_now())
            installation.customers.place(connection, server, customer.customer_id, None, utc_now())
        bench.add_snapshot(server, utc_now(), verified=True)
        bench.add_job(server, JobKind.CHECK)
        opening = Opening(utc_now() - timedelta(hours=2), utc_now() - timedelta(hours=1))
        missed = MissedWindow(server.server_id, JobKind.PATCH, opening, "it was off", utc_now())
        installation.windows.record_missed([missed])
        bench.add_survey(server, opening)
    world = World(bench, customers[0], servers[0], servers[1], {})
    world.members["customer"] = world.member("anna", Role.CUSTOMER, customers[0].customer_id)
    world.members["other"] = world.member("bea", Role.CUSTOMER, customers[1].customer_id)
    world.members["support"] = world.member("kim", Role.SUPPORT)
    world.members["admin"] = world.member("joe", Role.ADMIN)
    return world


def documented(bench: ApiBench) -> set[tuple[str, str]]:
    """The routes of the API but one, whose body is signed; those of operations have no callers."""
    paths = bench.app.openapi()["paths"]
    return {
        (method.upper(), path)
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/v1/") and path != "/v1/webhooks/zammad"
    }


def asked_permissions(bench: ApiBench) -> dict[tuple[str, str], Permission | None]:
    """What each route of the included routers says of itself."""
    routers = [getattr(route, "original_router", None) for route in bench.app.routes]
    found = [route for router in routers if router is not None for route in router.routes]
    return {
        (method, route.path): permission_of(route.dependencies, route.path)
        for route in found
        if isinstance(route, GuardedRoute)
        for method in route.methods
    }


def ask(api: TestClient, world: World, route: tuple[str, str], caller: Member) -> int:
    method, path = route
    body = BODIES.get(route, {}) if method in ("POST", "PUT", "PATCH") else None
    # Of events a page: a stream goes on until the job's end.
    headers = {**caller.headers, "Accept": "application/json"}
    answer = api.request(method, world.address(path, caller), json=body, headers=headers)
    assert "{" not in str(answer.request.url), "every thing of a path is there"
    return answer.status_code


def test_every_route_is_in_the_matrix_with_the_permission_that_it_asks(bench: ApiBench) -> None:
    assert documented(bench) == set(ROUTES)
    assert asked_permissions(bench) == {route: asked for route, (asked, _) in ROUTES.items()}


def test_roles_permit_what_the_matrix_says() -> None:
    for role, permissions in MAY.items():
        assert role.permissions == permissions


@pytest.mark.parametrize("name", ["customer", "other", "support", "admin"])
def test_every_route_lets_in_whom_it_should_and_nobody_else(
    world: World, api: TestClient, name: str
) -> None:
    caller = world.members[name]
    wrong = []
    for route, (permission, tenant) in ROUTES.items():
        status = ask(api, world, route, caller)
        if permission is not None and permission not in MAY[caller.user.role]:
            fine = status == 403
        elif tenant is Tenant.OF_SERVER and name == "other":
            fine = status == 404
        else:
            fine = (status not in (401, 403, 404) and status < 500) or status == 503
        if not fine:
            wrong.append((*route, status))
    assert wrong == []


def test_no_route_lets_in_whoever_has_no_token_that_counts(world: World, api: TestClient) -> None:
    joe = world.members["admin"]
    past = utc_now() - timedelta(seconds=1)
    gone = world.member("gone", Role.ADMIN)
    revoked = world.token(joe.user)
    installation = world.bench.installation
    with writing(installation.database) as connection:
        installation.access.set_disabled(connection, gone.user, utc_now())
        token = installation.access.token(revoked.text[4:16])
        installation.access.revoke(connection, token, utc_now())
    expired = world.token(joe.user, expires_at=past)
    strangers = [replace(joe, text=""), replace(joe, text=joe.text[:-1] + "x")]
    for caller in (*strangers, expired, revoked, gone):
        for route in ROUTES:
            assert ask(api, world, route, caller) == 401, (route, caller)


def test_a_token_without_the_scope_opens_no_route(world: World, api: TestClient) -> None:
    joe = world.members["admin"]
    for route, (permission, _) in ROUTES.items():
        if permission is not None:
            others = frozenset(Permission) - {permission}
            assert ask(api, world, route, world.token(joe.user, scopes=others)) == 403, route


def test_nothing_that_customers_may_ask_for_is_without_an_owner() -> None:
    loose = [route for route, (_, tenant) in ROUTES.items() if tenant is Tenant.NONE]
    assert [route for route in loose if ROUTES[route][0] in CUSTOMER] == []


@pytest.mark.parametrize(
    "route", [route for route, (_, tenant) in ROUTES.items() if tenant is Tenant.LIST]
)
def test_lists_hold_what_is_the_customers_own(
    world: World, api: TestClient, route: tuple[str, str]
) -> None:
    """Each customer has a server with one of everything that there are lists of."""
    method, path = route
    for server in (world.server, world.other):
        world.add_window(server)
        world.session(server)

    def servers_seen_by(name: str) -> set[str]:
        headers = world.members[name].headers
        answer = api.request(method, path, json=BODIES.get(route), headers=headers)
        assert answer.status_code == 200, answer.text
        return {item[SERVER_IN.get(path, "server_id")] for item in answer.json()["items"]}

    assert servers_seen_by("customer") == {world.server.server_id}
    assert servers_seen_by("other") == {world.other.server_id}
    assert servers_seen_by("support") == {world.server.server_id, world.other.server_id}


def test_what_is_anothers_is_answered_as_what_does_not_exist(world: World, api: TestClient) -> None:
    headers = world.members["other"].headers
    for name in ("annas", world.server.server_id):
        there = api.get(f"/v1/servers/{name}", headers=headers).json()
        nowhere = api.get("/v1/servers/nowhere", headers=headers).json()
        assert there["detail"].replace(name, "nowhere") == nowhere["detail"]
    job = world.bench.installation.queue.find(server_id=world.server.server_id)[0]
    unknown = str(uuid.uuid4())
    there = api.get(f"/v1/jobs/{job.job_id}", headers=headers).json()
    nowhere = api.get(f"/v1/jobs/{unknown}", headers=headers).json()
    assert there["detail"].replace(job.job_id, unknown) == nowhere["detail"]
    filtered = api.get("/v1/jobs", params={"server_id": "annas"}, headers=headers)
    assert filtered.status_code == 404
    assert api.get("/v1/jobs", params={"cursor": job.job_id}, headers=headers).status_code == 404


def test_customers_ask_for_little_and_staff_for_all(world: World, api: TestClient) -> None:
    asked = {
        "patch": 403,
        "harden": 403,
        "rescue": 403,
        "unrescue": 403,
        "restore": 403,
        "enrol": 403,
    }
    for kind, status in asked.items():
        for name, expected in (("customer", status), ("other", status)):
            answer = api.post(
                "/v1/servers/annas/jobs",
                json={"kind": kind},
                headers=world.members[name].headers,
            )
            assert answer.status_code == expected, (kind, name)
    power = {"kind": "power", "action": "reset"}
    own = api.post("/v1/servers/annas/jobs", json=power, headers=world.members["customer"].headers)
    assert own.status_code in (202, 409)


def test_a_customer_cancels_only_what_a_customer_may_ask_for(world: World, api: TestClient) -> None:
    bench = world.bench
    server = bench.add_server("second")
    with writing(bench.installation.database) as connection:
        bench.installation.customers.place(
            connection, server, world.anna.customer_id, None, utc_now()
        )
    patch = bench.add_job(server, JobKind.PATCH)
    headers = world.members["customer"].headers
    refused = api.post(f"/v1/jobs/{patch.job_id}/cancel", json={}, headers=headers)
    assert refused.status_code == 403
    (check, _) = bench.installation.queue.find(server_id=world.server.server_id)
    done = api.post(f"/v1/jobs/{check.job_id}/cancel", json={}, headers=headers)
    assert done.status_code == 202


def test_a_stranger_is_sent_away_before_the_body_is_read(world: World, api: TestClient) -> None:
    headers = {**world.members["customer"].headers, "Content-Type": "application/json"}
    answer = api.post("/v1/customers", content=b"{not json", headers=headers)
    assert answer.status_code == 403
