"""A small world for the engine's tests: a server on record, workflows made of plain functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import Engine as Database

from managed.domain.errors import Json
from managed.domain.jobs import Job, JobKind, RetryPolicy
from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.storage.database import writing
from managed.storage.events import EventLog
from managed.storage.inventory import Inventory
from managed.storage.job_queue import JobQueue, NewJob
from managed.storage.leases import LeasedJobs
from managed.workflows.engine import Engine
from managed.workflows.steps import Done, Outcome, Step, StepContext, Workflow
from managed.workflows.world import World

START = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


class ManualClock:
    """A clock, and a stopwatch beside it, that stand still until they are told to move."""

    def __init__(self) -> None:
        self.now = START
        self.seconds = 0.0

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, **amount: float) -> None:
        passed = timedelta(**amount)
        self.now += passed
        self.seconds += passed.total_seconds()

    def stopwatch(self) -> float:
        return self.seconds

    def set_back(self, **amount: float) -> None:
        """Somebody puts the clock right; no time passes."""
        self.now -= timedelta(**amount)


class NoChildren:
    """No process works for these steps; it notes which survivors it was asked to end."""

    def __init__(self) -> None:
        self.ended: list[Mapping[str, Json]] = []

    def describe(self, group: int) -> Mapping[str, Json]:
        return {"group": group}

    def end(self, child: Mapping[str, Json]) -> bool:
        self.ended.append(child)
        return True


@dataclass
class JobBench:
    """Submits jobs of made-up workflows and runs engines on them."""

    database: Database
    clock: Any = field(default_factory=ManualClock)
    children: NoChildren = field(default_factory=NoChildren)
    sent: list[str] = field(default_factory=list)
    workflows: dict[tuple[JobKind, int], Workflow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = JobQueue(self.database)
        self.store = LeasedJobs(self.database)
        self.events = EventLog(self.database)
        self.inventory = Inventory(self.database)
        self.server_id = self.add_server("one")

    def add_server(self, name: str) -> str:
        server = Server(
            server_id=f"00000000-0000-4000-8000-{name:0>12}",
            name=name,
            origin=ServerOrigin.ENROLLED,
            status=ServerStatus.ACTIVE,
            address="127.0.0.1",
            ssh_port=22,
            ssh_user="root",
            host_key="",
            operating_system="",
        )
        with writing(self.database) as connection:
            self.inventory.add(connection, server, self.clock())
        return server.server_id

    def workflow(self, *steps: Step, kind: JobKind = JobKind.PATCH, version: int = 1) -> None:
        self.workflows[kind, version] = Workflow(kind, version, steps, timedelta(hours=1))

    def submit(self, kind: JobKind = JobKind.PATCH, **options: Any) -> Job:
        new = NewJob(
            server_id=options.pop("server_id", self.server_id),
            kind=kind,
            workflow_version=options.pop("version", 1),
            parameters={},
            time_limit=timedelta(hours=1),
            requested_by="test",
            **options,
        )
        return self.queue.submit(new, self.clock())

    def engine(self, owner: str = "worker-1", **options: Any) -> Engine:
        return Engine(
            store=self.store,
            workflows=self.workflows,
            world=cast(World, None),
            children=self.children,
            clock=self.clock,
            stopwatch=self.clock.stopwatch,
            owner=owner,
            lease_for=timedelta(seconds=30),
            send=self.sent.append,
            **options,
        )

    def event_types(self, job: Job) -> list[str]:
        return [event.type for event in self.events.after(job.job_id, 0)]


def step(
    name: str,
    run: Callable[[StepContext], Outcome | None] = lambda _: None,
    **options: Any,
) -> Step:
    """A step that is done with an empty result unless its function says otherwise."""
    options.setdefault("retry", RetryPolicy(attempts=3))
    return Step(name, lambda context: run(context) or Done(), **options)
