"""Windows over servers that exist in memory only: an installation, its clock, and the machines that
answer to surveys.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from managed.domain.connections import CommandResult, Endpoint
from managed.domain.customers import Customer, Plan, PlanKind
from managed.domain.jobs import Job, JobKind
from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.domain.surveys import SurveyOutcome
from managed.domain.windows import Window, WindowOwner
from managed.drivers.fakes.runs import FakePolls, FakeRuns
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.ssh.keys import new_key_pair
from managed.settings import Settings
from managed.storage.database import writing
from managed.wiring import Installation
from tests.support.jobs import JobBench
from tests.support.surveys import nothing_to_do, update
from tests.support.waiting import wait_until
from workers.openings import Openings
from workers.surveys import Surveys

CUSTOMER = Customer("c0000000-0000-4000-8000-000000000001", "Anna", "anna@example.org")
PLAN = Plan("b0000000-0000-4000-8000-000000000001", "managed", PlanKind.MANAGED, True)
UNMANAGED = Plan("b0000000-0000-4000-8000-000000000002", "bare", PlanKind.UNMANAGED)
OPENS = datetime(2026, 4, 1, 2, tzinfo=UTC)
CLOSES = OPENS + timedelta(hours=2)
NO_SURVEY = "it was not known what there was to do: no survey had ended while it was open"


class Machines(FakePolls):
    """The machines that servers run on. A survey finds one update on them, unless `documents` says
    for a server what it finds. What is asked of one in `slow` is answered when that is set, and so
    are questions to one of `hung_nodes`; `nodes` says on which of them a server is.
    """

    def __init__(self, bench: JobBench) -> None:
        super().__init__(FakeRuns(FakeShell()))
        self.bench = bench
        self.documents: dict[str, dict[str, Any]] = {}
        self.host_keys: dict[str, str] = {}
        self.asked: list[str] = []
        self.slow: dict[str, threading.Event] = {}
        self.nodes: dict[str, str] = {}
        self.hung_nodes: dict[str, threading.Event] = {}
        self.asked_nodes: list[str] = []
        self._names: dict[int, str] = {}
        self._login = new_key_pair().private_key

    def machine(self, server_id: str) -> FakeServer:
        """It stands at a port of its own, on an address that all of them share."""
        port = next((p for p, one in self._names.items() if one == server_id), 0)
        if not port:
            port = len(self._names) + 1
            self._names[port] = server_id
            key = self.host_keys.setdefault(server_id, new_key_pair().public_key)
            machine = self.runs.shell.add("127.0.0.1", port, FakeServer(key, self._login))
            machine.commands["python3"] = lambda argv, _: self._surveyed(server_id, argv)
        return self.runs.shell.servers["127.0.0.1", port]

    def endpoint(self, server_id: str) -> Endpoint:
        key = self.machine(server_id).host_key
        port = next(p for p, one in self._names.items() if one == server_id)
        return Endpoint("127.0.0.1", port, "root", key, self._login)

    def server(self, server_id: str) -> SimpleNamespace:
        return SimpleNamespace(
            host_key=self.host_keys[server_id], node_id=self.nodes.get(server_id)
        )

    def node(self, node_id: str) -> SimpleNamespace:
        return SimpleNamespace(capabilities=lambda: self._capabilities(node_id))

    def _capabilities(self, node_id: str) -> SimpleNamespace:
        self.asked_nodes.append(node_id)
        if node_id in self.hung_nodes:
            self.hung_nodes[node_id].wait()
        return SimpleNamespace(time_scale=1.0)

    async def run(self, endpoint: Endpoint, *given: Any, **options: Any) -> CommandResult:
        server_id = self._names[endpoint.port]
        self.asked.append(server_id)
        if server_id in self.slow:
            await asyncio.to_thread(self.slow[server_id].wait)
        return await super().run(endpoint, *given, **options)

    def _surveyed(self, server_id: str, argv: Sequence[str]) -> CommandResult:
        usual = {**nothing_to_do(self.bench.clock()), "pending": [update("vim")]}
        found = {**usual, **json.loads(argv[2]), **self.documents.get(server_id, {})}
        return CommandResult(0, f"a login shell prints\n{json.dumps(found)}\n", "")


@dataclass
class Stage:
    """An installation with a customer, a managed plan, and one server on it."""

    bench: JobBench
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bench.clock.now = OPENS - timedelta(hours=1)
        self.installation = Installation(Settings(), self.bench.database, self.bench.clock)
        self.machines = Machines(self.bench)
        vars(self.installation)["world"] = SimpleNamespace(
            endpoint=self.machines.endpoint,
            servers=SimpleNamespace(get=self.machines.server),
            hypervisor_of=self.machines.node,
            polls=self.machines,
        )
        self.start_clock()
        customers = self.installation.customers
        with writing(self.bench.database) as connection:
            customers.add(connection, CUSTOMER, self.now)
            for plan in (PLAN, UNMANAGED):
                customers.add_plan(connection, plan, self.now)
        self.place(self.bench.server_id, PLAN)

    @property
    def now(self) -> datetime:
        return self.bench.clock()

    def start_clock(self) -> None:
        """Another process of the clock, or the first one: it remembers nothing."""
        self.surveys = Surveys(self.installation)
        self.openings = Openings(self.installation, self.surveys, self.sent.append)

    def place(self, server_id: str, plan: Plan, customer: Customer = CUSTOMER) -> None:
        with writing(self.bench.database) as connection:
            self.installation.customers.place(
                connection,
                self.bench.inventory.get(server_id),
                customer.customer_id,
                plan.plan_id,
                self.now,
            )

    def put_on_record(self, name: str) -> str:
        """A server that is not under management yet."""
        server = Server(
            server_id=str(uuid.uuid4()),
            name=name,
            origin=ServerOrigin.ENROLLED,
            status=ServerStatus.NEW,
            address="127.0.0.1",
            ssh_port=22,
            ssh_user="root",
            host_key="",
            operating_system="",
        )
        with writing(self.bench.database) as connection:
            self.installation.inventory.add(connection, server, self.now)
        self.place(server.server_id, PLAN)
        return server.server_id

    def change_plan(self, plan: Plan, kind: PlanKind) -> None:
        with writing(self.bench.database) as connection:
            self.installation.customers.change_plan(connection, replace(plan, kind=kind), self.now)

    def change_window(self, window: Window, **changes: Any) -> None:
        changed = replace(window, **changes, created_at=self.now)
        with writing(self.bench.database) as connection:
            self.installation.windows.change(connection, changed)

    def remove_window(self, window: Window) -> None:
        with writing(self.bench.database) as connection:
            self.installation.windows.remove(connection, window.window_id, self.now)

    def window(
        self,
        owner: WindowOwner = WindowOwner.PLAN,
        owner_id: str = PLAN.plan_id,
        kind: JobKind = JobKind.PATCH,
        rule: str = "FREQ=DAILY;BYHOUR=2",
    ) -> Window:
        window = Window(
            window_id=f"{owner}-{kind}",
            owner=owner,
            owner_id=owner_id,
            job_kind=kind,
            rule=rule,
            zone="UTC",
            minutes=120,
            starts_on=date(2026, 1, 1),
            created_at=self.now,
        )
        with writing(self.bench.database) as connection:
            self.installation.windows.add(connection, window)
        return window

    def tick(self, at: datetime) -> list[Job]:
        """What the clock does at that time, and again when the servers that it asked have answered;
        all jobs that there are then, oldest first.
        """
        self.do_duties(at)
        wait_until(lambda: self.all_answered(at), timeout=30, what="the servers have answered")
        return self.do_duties(at)

    def do_duties(self, at: datetime) -> list[Job]:
        self.bench.clock.now = at
        self.surveys.store(at)
        self.openings.start(at)
        self.openings.end_too_late(at)
        self.openings.record_missed(at)
        return list(reversed(self.bench.queue.find(limit=200)))

    def all_answered(self, at: datetime) -> bool:
        self.surveys.store(at)
        return not self.surveys.is_asking

    def nothing_to_do(self, server_id: str | None = None) -> None:
        """Its next survey finds that it is up to date."""
        self.machines.documents[server_id or self.bench.server_id] = {"pending": []}

    def surveyed(self) -> dict[str, tuple[SurveyOutcome, str]]:
        """What was found last, by server."""
        found = self.installation.surveys.find(since=datetime(2026, 1, 1, tzinfo=UTC), limit=200)
        return {one.server_id: (one.finding.outcome, one.finding.detail) for one in reversed(found)}

    def missed(self) -> list[tuple[JobKind, datetime, str]]:
        found = self.installation.windows.missed(since=datetime(2026, 1, 1, tzinfo=UTC))
        return [(one.job_kind, one.opening.starts_at, one.reason) for one in reversed(found)]

    def begin(self, job: Job) -> Job | None:
        claimed = self.bench.store.claim(job.job_id, "w", self.now, timedelta(minutes=1))
        return claimed[0] if claimed else None

    def pause(self) -> None:
        with writing(self.bench.database) as connection:
            self.installation.windows.begin_pause(connection, "a bad update", "kim", self.now)

    def end_pause(self) -> None:
        with writing(self.bench.database) as connection:
            self.installation.windows.end_pause(connection)
