"""Real workflows, run by the real engine on a node, a server and a bucket in memory, by workers
that are killed after whatever they do: what a step has done is then not on record.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from managed.domain.connections import CommandResult, Endpoint, KeyPair
from managed.domain.disk_layout_documents import layout_as_json
from managed.domain.disk_layouts import default_layout
from managed.domain.errors import Json, ManagedError, ServerUnreachable
from managed.domain.jobs import Job, JobKind
from managed.domain.manifest_parts import PathSet, part_of
from managed.domain.manifests import EntryKind, ManifestEntry, manifest_lines, parsed_manifest
from managed.domain.progress import UNDO_PREFIX
from managed.domain.questions import PowerIs, Question, RunEnded, SshAnswers, TimePassed
from managed.domain.runs import RunRequest, RunState
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.servers import (
    Node,
    PowerState,
    Server,
    ServerOrigin,
    ServerSpec,
    ServerStatus,
    disk_serial_for,
)
from managed.domain.snapshots import account_of
from managed.drivers.fakes.gateway import FakeGateway
from managed.drivers.fakes.hypervisor import FakeHypervisor
from managed.drivers.fakes.objects import FakeObjectStore
from managed.drivers.fakes.playbooks import FakePlaybooks, PlaybookCall, nothing_to_do
from managed.drivers.fakes.repositories import FakeRepositories
from managed.drivers.fakes.runs import FakePolls, FakeRuns, Performed
from managed.drivers.fakes.shell import FakeServer, FakeShell
from managed.drivers.fakes.transfers import FakeTransfers
from managed.drivers.fakes.tunnels import FakeTunnels
from managed.drivers.ssh.failures import login_refused
from managed.ports import PlaybookReport
from managed.server_scripts import script_source
from managed.storage.catalogue import Catalogue
from managed.storage.database import open_database, writing
from managed.storage.inventory import Inventory
from managed.storage.job_queue import JobQueue, NewJob
from managed.storage.leases import LeasedJobs
from managed.storage.sessions import SessionRecords
from managed.storage.vault import SealedVault
from managed.storage.waiting import WaitingJobs
from managed.workflows.engine import Engine, RunEnd
from managed.workflows.registry import WORKFLOWS, current_workflow
from managed.workflows.steps import Done, Outcome, Step, StepContext, Wait, Workflow
from managed.workflows.world import Sources, World
from tests.support.hardening import FakeHardening, Lockout, is_hardened
from tests.support.jobs import ManualClock, NoChildren

SCRIPTS = (
    *("install_system", "take_backup", "restore_system", "restore_files"),
    *("load_databases", "apply_updates"),
)
SERVER_ID = "00000000-0000-4000-8000-000000000001"
NODE_ID = "00000000-0000-4000-8000-00000000000a"
CONTENT = {"/etc/hostname": b"one\n", "/srv/page": b"a page\n"}
OLD_SYSTEM, NEW_SYSTEM = "the system of before", "the installed system"
_LEASE = timedelta(seconds=30)
_MANY = 200

Observer = Callable[[StepContext, str, Outcome | None], None]
"""Told after each call of a step: its name ("undo:" before it for an undo) and what it answered."""


class Killed(BaseException):
    """kill -9: the worker is gone, and with it what it had in mind to record."""


class NodeShell(FakeShell):
    """Reaches what is powered on at this moment: a system, a rescue session, or nothing."""

    def __init__(self, present: Callable[[], FakeServer | None]) -> None:
        super().__init__()
        self._present = present
        self.lockout = Lockout.NOBODY

    def fresh_login(self, endpoint: Endpoint, *, timeout: float = 60) -> str:
        if self.lockout is Lockout.NEW_LOGINS and is_hardened(super().reach(endpoint)):
            raise login_refused(endpoint.describe())
        return super().fresh_login(endpoint, timeout=timeout)

    def reach(self, endpoint: Endpoint) -> FakeServer:
        here = self._present()
        self.servers = {} if here is None else {(endpoint.address, endpoint.port): here}
        server = super().reach(endpoint)
        if self.lockout is Lockout.EVERYBODY and is_hardened(server):
            raise login_refused(endpoint.describe())
        return server


class WorkflowBench:
    """One server and all that happens to it.

    `server_system` is what boots from its disk (None: nothing does). `failures` holds what a
    server script fails with, `hanging` the scripts that never end; `claimed` goes over what the
    script that takes backups says (`taken` is what it said last), `updated` over what the one that
    patches says, `answers` over what the poller tells, `health` over what a health check sees. With
    `kills`, a worker dies once after each call of each step and each undo.
    """

    def __init__(self, folder: Path, url: str, *, on_a_node: bool = True) -> None:
        self.database = open_database(url)
        self.clock = ManualClock()
        self.queue = JobQueue(self.database)
        self.inventory = Inventory(self.database)
        self.sessions = SessionRecords(self.database)
        self.catalogue = Catalogue(self.database)
        self.vault = SealedVault(self.database, os.urandom(32), self.clock)
        self.hypervisor = FakeHypervisor(self.clock)
        self.hardening = FakeHardening(self.clock)
        self.shell = NodeShell(self._present)
        self.runs = FakeRuns(self.shell, self._perform)
        self.playbooks = FakePlaybooks(
            {
                "prepare": self._prepare,
                "patch": self._start_patch,
                "harden": lambda call: self.hardening.harden(self.shell.reach(call.endpoint), call),
                "confirm_hardening": lambda call: self.hardening.confirm(
                    self.shell.reach(call.endpoint)
                ),
            }
        )
        self.repositories = FakeRepositories()
        self.gateway = FakeGateway()
        self.objects = FakeObjectStore()
        self.restic = folder / "restic"
        self.restic.write_bytes(b"restic")
        self.server_system: FakeServer | None = None
        self.rescue_systems: dict[str, FakeServer] = {}
        self.failures: dict[str, dict[str, Json]] = {}
        self.hanging: set[str] = set()
        self.claimed: dict[str, Json] = {}
        self.taken: dict[str, Json] = {}
        self.updated: dict[str, Json] = {}
        self.restored: dict[str, Any] = {}
        self.present: set[str] = {"/etc", "/srv", *CONTENT}
        self.strange: set[str] = set()
        self.health: Callable[[dict[str, Any]], dict[str, Any]] = lambda report: report
        self.kills = False
        self.answers: Callable[[dict[str, Json]], dict[str, Json] | None] = lambda answer: answer
        self.observe: Observer = lambda _context, _name, _outcome: None
        self._killed: set[tuple[str, str, bool]] = set()
        self._on_a_node = on_a_node
        self._keys = 0
        self._add_server()
        self.world = self._world()

    # ------------------------------------------------------------ the server

    @property
    def server(self) -> Server:
        return self.inventory.get(SERVER_ID)

    @property
    def power(self) -> PowerState:
        return self.hypervisor.power_state(SERVER_ID)

    @property
    def disk(self) -> bytes:
        return self.hypervisor.read_disk(SERVER_ID)

    def exists(self, status: ServerStatus = ServerStatus.ACTIVE, *, running: bool = True) -> None:
        """The server is there and under management, with a system on its disk."""
        login = Secret("private login")
        self.vault.keep(SERVER_ID, SecretPurpose.LOGIN_KEY, login)
        self.inventory.pin_host_key(SERVER_ID, "public host", replacing="")
        self.inventory.set_status(SERVER_ID, status, self.clock())
        self.server_system = self._system("public host", login)
        if self._on_a_node:
            assert self.server.spec is not None
            self.hypervisor.create_server(self.server.spec)
            self.hypervisor.write_disk(SERVER_ID, OLD_SYSTEM.encode())
            if running:
                self.hypervisor.start(SERVER_ID)

    def has_backup(self) -> str:
        """A verified backup is in the bucket; returns its snapshot's id."""
        job = self.finish(JobKind.BACKUP)
        assert job.status.value == "succeeded", job.error
        return str(self.taken["snapshot_id"])

    # ------------------------------------------------------------ jobs

    def submit(self, kind: JobKind, **parameters: Json) -> str:
        workflow = current_workflow(kind)
        new = NewJob(
            server_id=SERVER_ID,
            kind=kind,
            workflow_version=workflow.version,
            parameters=parameters,
            time_limit=workflow.time_limit,
            requested_by="test",
        )
        return self.queue.submit(new, self.clock()).job_id

    def finish(self, kind: JobKind, **parameters: Json) -> Job:
        return self.follow(self.submit(kind, **parameters))

    def follow(self, job_id: str) -> Job:
        """Work on the job until it has ended: workers, poller and clock in turn."""
        for _ in range(_MANY):
            job = self.queue.job(job_id)
            if job.status.is_final:
                return job
            try:
                end = self._engine().run(job_id)
            except Killed:
                self.clock.pass_time(seconds=_LEASE.total_seconds() + 1)
                continue
            if end is RunEnd.WAITING:
                self._poll(job_id)
            elif end is RunEnd.LATER:
                due = self.queue.job(job_id).next_attempt_at
                assert due is not None
                self.clock.now = due
        raise AssertionError(f"the job does not end: {self.queue.job(job_id)}")

    def cancel_at(self, step: str, *, done: bool) -> None:
        """Somebody cancels when this step has been called for the first time, or when it is
        done.
        """
        asked: list[str] = []

        def observe(context: StepContext, name: str, outcome: Outcome | None) -> None:
            if name == step and not asked and not (done and isinstance(outcome, Wait)):
                asked.append(name)
                self.queue.cancel(context.job.job_id, "somebody changed their mind", self.clock())

        self.observe = observe

    # ------------------------------------------------------------ inside

    def _engine(self) -> Engine:
        return Engine(
            store=LeasedJobs(self.database),
            workflows={key: self._mortal(workflow) for key, workflow in WORKFLOWS.items()},
            world=self.world,
            children=NoChildren(),
            clock=self.clock,
            stopwatch=self.clock.stopwatch,
            owner="worker",
            lease_for=_LEASE,
            send=lambda _job_id: None,
        )

    def _mortal(self, workflow: Workflow) -> Workflow:
        return replace(workflow, steps=tuple(self._mortal_step(step) for step in workflow.steps))

    def _mortal_step(self, step: Step) -> Step:
        def run(context: StepContext) -> Outcome:
            outcome = step.run(context)
            self._after(context, step.name, outcome)
            return outcome

        def undo(context: StepContext) -> Done | None:
            undone = None if step.undo is None else step.undo(context)
            self._after(context, UNDO_PREFIX + step.name, None)
            return undone

        return replace(step, run=run, undo=undo if step.undo else None)

    def _after(self, context: StepContext, name: str, outcome: Outcome | None) -> None:
        self.observe(context, name, outcome)
        call = (context.job.job_id, name, isinstance(outcome, Wait))
        if self.kills and call not in self._killed:
            self._killed.add(call)
            raise Killed

    def _poll(self, job_id: str) -> None:
        waiting = WaitingJobs(self.database)
        asked = next((q for q in waiting.questions() if q.job_id == job_id), None)
        if asked is None:
            return  # somebody who cancelled has woken it
        assert asked.question is not None
        facts = self._answer(asked.question, asked.until)
        facts = None if facts is None else self.answers(facts)
        outcome = "timed-out" if facts is None else "answered"
        assert waiting.wake(asked, {"outcome": outcome, **(facts or {})})

    def _answer(self, question: Question, until: datetime) -> dict[str, Json] | None:
        """What the world says in the end; None when it says nothing."""
        try:
            match question:
                case RunEnded(run_id=run_id, offset=offset):
                    report = self.runs.look(self.world.endpoint(SERVER_ID), run_id, offset)
                    if report.state is RunState.RUNNING:
                        return None
                    return {
                        "state": report.state.value,
                        "exit_status": report.exit_status,
                        "boot_id": report.boot_id,
                    }
                case SshAnswers(not_boot_id=old):
                    boot_id = self.shell.boot_id(self.world.endpoint(SERVER_ID))
                    return None if boot_id == old else {"boot_id": boot_id}
                case TimePassed():
                    self.clock.now = until
                    return None
                case PowerIs(state=state):
                    return {"state": state} if self.power.value == state else None
        except ServerUnreachable:
            return None
        except ManagedError as error:
            return {"error": error.as_json()}
        raise AssertionError(question)

    # ------------------------------------------------------------ what happens on the server

    def _present(self) -> FakeServer | None:
        if not self._on_a_node:
            return self.server_system
        power = self.power
        if power is PowerState.RESCUE:
            return self._rescue_system()
        if self.server_system is not None:
            self.hardening.strike(self.server_system)
        return self.server_system if power is PowerState.RUNNING else None

    def _rescue_system(self) -> FakeServer:
        booted = self.hypervisor.rescue_of(SERVER_ID)
        assert booted is not None
        if booted.session_id not in self.rescue_systems:
            files = booted.configuration
            self.rescue_systems[booted.session_id] = self._system(
                _public(files["ssh_host_ed25519_key"]),
                _private(files["authorized_keys"].reveal().strip()),
            )
        return self.rescue_systems[booted.session_id]

    def _system(self, host_key: str, login: Secret) -> FakeServer:
        server = FakeServer(host_key, login)

        def health(_argv: Any, _stdin: bytes) -> CommandResult:
            return CommandResult(0, json.dumps(self.health(healthy(server.boot_id))), "")

        def systemctl(argv: Any, _stdin: bytes) -> CommandResult:
            if argv[1] == "reboot":
                server.reboot()
            return CommandResult(0, "", "")

        server.commands |= {"python3": health, "systemctl": systemctl}

        def remove(argv: Any, _stdin: bytes) -> CommandResult:
            server.files.pop(argv[-1], None)
            return CommandResult(0, "", "")

        server.commands |= {"rm": remove, "sh": lambda _argv, _stdin: self.hardening.end(server)}

        def find(argv: Any, _stdin: bytes) -> CommandResult:
            named = argv[1 : argv.index("-maxdepth")]
            there = self.strange if "!" in argv else self.present
            return CommandResult(0, "".join(f"{path}\n" for path in named if path in there), "")

        server.commands["find"] = find
        server.commands["mkdir"] = lambda _argv, _stdin: CommandResult(0, "", "")
        return server

    def _perform(self, request: RunRequest) -> Performed:
        name = next(name for name in SCRIPTS if request.script == script_source(name))
        given = json.loads(request.arguments[0])
        if name in self.hanging:
            return Performed(exit_status=None)
        if name in self.failures:
            self._leave(request, "result.json", {"ok": False, "error": self.failures[name]})
            return Performed(exit_status=1)
        result = getattr(self, f"_{name}")(request, given)
        self._leave(request, "result.json", {"ok": True, **result})
        return Performed()

    def _leave(self, request: RunRequest, name: str, content: dict[str, Any] | bytes) -> None:
        here = self._present()
        assert here is not None
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        here.files[f"/var/lib/managed/runs/{request.run_id}/{name}"] = raw

    def _install_system(self, _request: RunRequest, given: dict[str, Any]) -> dict[str, Json]:
        login = _private(given["authorized_keys"][0].removesuffix(" managed"))
        self.server_system = self._system("public installed", login)
        self.hypervisor.write_disk(SERVER_ID, NEW_SYSTEM.encode())
        return {"host_key": "public installed", "seconds": 1}

    def _take_backup(self, request: RunRequest, given: dict[str, Any]) -> dict[str, Json]:
        account = account_of(SERVER_ID)
        part = PathSet(given["paths"] or ["/"])
        content = {path: data for path, data in CONTENT.items() if part.covers(path)}
        snapshot_id = self.repositories.add_snapshot(
            account, self.clock(), content, tags=given["tags"]
        )
        entries = list(part_of(manifest_of_content(), part))
        self._leave(request, "manifest.jsonl.gz", compressed("".join(manifest_lines(entries))))
        layout = layout_as_json(default_layout(2 * 1024**3, lambda: "0" * 8))
        self._leave(request, "layout.json", {"layout": layout, "system": {}})
        usual: dict[str, Json] = {
            "snapshot_id": snapshot_id,
            "files": len(entries),
            "bytes": 14,
            "warnings": [],
        }
        self.taken = {**usual, **self.claimed}
        return self.taken

    def _restore_system(self, _request: RunRequest, _given: dict[str, Any]) -> dict[str, Json]:
        self.hypervisor.write_disk(SERVER_ID, b"restored")
        return {"checked": self.taken["files"], "rewritten": []}

    def _restore_files(self, _request: RunRequest, given: dict[str, Any]) -> dict[str, Json]:
        self.restored = given
        here = self._present()
        assert here is not None
        lines = gzip.decompress(here.files[given["manifest"]]).decode().splitlines()
        covered = PathSet(given["paths"]).covers
        return {"checked": sum(covered(entry.path) for entry in parsed_manifest(lines))}

    def _load_databases(self, _request: RunRequest, _given: dict[str, Any]) -> dict[str, Json]:
        return {"databases": [], "left": [], "warnings": []}

    def _apply_updates(self, _request: RunRequest, _given: dict[str, Any]) -> dict[str, Json]:
        usual: dict[str, Json] = {
            "lists": {"updated_at": "2026-01-01T00:00:00Z", "releases": []},
            "pending": [{"name": "linux-image", "before": "1", "after": "2", "security": True}],
            "packages_before": {"linux-image": "1"},
            "packages_after": {"linux-image": "2"},
            "kept_back": [],
            "warnings": [],
            "reboot": {"reasons": ["a new kernel"]},
        }
        return {**usual, **self.updated}

    # ------------------------------------------------------------ playbooks

    def _prepare(self, call: PlaybookCall) -> PlaybookReport:
        digest = hashlib.sha256(self.restic.read_bytes()).hexdigest()
        found = CommandResult(0, f"{digest}  restic\n", "")
        self.shell.reach(call.endpoint).commands["sha256sum"] = lambda _argv, _stdin: found
        return nothing_to_do(call)

    def _start_patch(self, call: PlaybookCall) -> PlaybookReport:
        document = json.loads(str(call.variables["patch_request"]))
        document["arguments"] = tuple(document["arguments"])
        self.runs.start(call.endpoint, RunRequest(**document))
        return nothing_to_do(call)

    # ------------------------------------------------------------ making it

    def _add_server(self) -> None:
        spec = ServerSpec(
            server_id=SERVER_ID,
            name="one",
            vcpus=1,
            memory_mib=256,
            disk_gib=2,
            disk_serial=disk_serial_for(SERVER_ID),
            mac="52:54:00:00:00:01",
        )
        server = Server(
            server_id=SERVER_ID,
            name="one",
            origin=ServerOrigin.CREATED if self._on_a_node else ServerOrigin.ENROLLED,
            status=ServerStatus.NEW,
            address="127.0.0.1",
            ssh_port=22,
            ssh_user="root",
            host_key="",
            operating_system="debian-12" if self._on_a_node else "",
            node_id=NODE_ID if self._on_a_node else None,
            spec=spec if self._on_a_node else None,
        )
        self.inventory.add_node(Node(NODE_ID, "node", "test:///default", "/srv"), self.clock())
        with writing(self.database) as connection:
            self.inventory.add(connection, server, self.clock())

    def _new_key_pair(self) -> KeyPair:
        self._keys += 1
        return KeyPair(Secret(f"private {self._keys}"), f"public {self._keys}")

    def _world(self) -> World:
        return World(
            servers=self.inventory,
            vault=self.vault,
            rescue_sessions=self.sessions,
            snapshots=self.catalogue,
            hypervisor_of=lambda _node_id: self.hypervisor,
            shell=self.shell,
            runs=self.runs,
            polls=FakePolls(self.runs),
            tunnels=FakeTunnels(self.shell),
            transfers=FakeTransfers(self.shell),
            playbooks=self.playbooks,
            repositories=self.repositories,
            gateway=self.gateway,
            objects=self.objects,
            sources=Sources(apt_sources=lambda system: f"deb {system}"),
            restic_path=str(self.restic),
            new_key_pair=self._new_key_pair,
            public_key=_public,
        )


def _public(key: Secret) -> str:
    return key.reveal().replace("private", "public")


def _private(key: str) -> Secret:
    return Secret(key.replace("public", "private"))


def healthy(boot_id: str) -> dict[str, Any]:
    """What check_health.py prints on a server that is well."""
    return {
        "boot_id": boot_id,
        "kernel": "6.1.0",
        "uptime_seconds": 60.0,
        "system_state": "running",
        "starting_units": [],
        "failed_units": [],
        "listeners": [],
        "filesystems": [],
        "dpkg_problems": [],
        "probes": [],
    }


def manifest_of_content() -> list[ManifestEntry]:
    """The manifest of CONTENT, as the fake repository stores it."""
    directories = [
        ManifestEntry(path, EntryKind.DIRECTORY, 0o755, 0, 0, 0) for path in ("/", "/etc", "/srv")
    ]
    files = [
        ManifestEntry(
            path,
            EntryKind.FILE,
            0o644,
            0,
            0,
            0,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        for path, data in CONTENT.items()
    ]
    return sorted([*directories, *files], key=lambda entry: entry.path)


def compressed(text: str) -> bytes:
    return gzip.compress(text.encode("ascii"), mtime=0)
