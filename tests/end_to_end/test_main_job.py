"""The main job on a real VPS, with workers killed in the middle of it.

One run for all questions, because it takes long: the demo's steps, while `Chaos` kills (-9) the
Celery worker and the clock mid-apt, mid-playbook, mid-backup and mid-restore, and `Watcher` looks
for secrets in every command line of this machine.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from managed.domain.secrets import SecretPurpose
from managed.drivers.processes import descendants, running_processes
from managed.lab.demo import STEPS, Demo, DemoService, clean_up
from managed.lab.demo_images import build_missing_images
from managed.lab.demo_report import DemoReport
from managed.lab.ports import free_port
from managed.settings import Settings
from managed.storage.database import open_database
from managed.wiring import Installation

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3600)]

WORKER, CLOCK = b"celery", b"workers.schedule"


def argv_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@dataclass
class Chaos:
    """Kills a part of the service, once per moment; the supervisor starts it again."""

    service_pid: int
    killed: dict[str, list[int]] = field(default_factory=dict)

    def observe(self, kind: str, event: Mapping[str, Any]) -> None:
        moment = self._moment(kind, str(event["type"]), event.get("data") or {})
        if moment is None or moment in self.killed:
            return
        self.killed[moment] = self._kill(WORKER)
        if moment != "mid-playbook":
            self.killed[moment] += self._kill(CLOCK)

    def _moment(self, kind: str, event: str, data: Mapping[str, Any]) -> str | None:
        if kind == "patch" and event == "patch_progress" and data.get("phase") == "install":
            return "mid-apt" if int(data.get("done", 0)) >= 3 else None
        if kind == "harden" and event == "playbook_task":
            return "mid-playbook"
        if kind == "backup" and event == "backup_progress":
            return "mid-backup"
        if kind == "restore" and event == "restore_progress":
            return "mid-restore"
        return None

    def _kill(self, what: bytes) -> list[int]:
        """The direct children of the service that are this part; what they had started must die
        with them by itself.
        """
        pids = [
            process.pid
            for process in running_processes()
            if process.parent == self.service_pid and what in argv_of(process.pid)
        ]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids


@dataclass
class Watcher:
    """Samples the command lines of all processes here until stopped."""

    seen: set[bytes] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.stopped.wait(0.5):
            self.seen |= {argv_of(process.pid) for process in running_processes()}

    def stop(self) -> bytes:
        self.stopped.set()
        self.thread.join()
        return b"\n".join(self.seen)


@dataclass
class Run:
    """What one run left for the tests."""

    installation: Installation
    demo: Demo
    chaos: Chaos
    report: Mapping[str, Any]
    command_lines: bytes
    service_pid: int

    def recorded(self) -> str:
        """Everything that the database holds, as text."""
        with sqlite3.connect(self.installation.settings.state / "managed.db") as connection:
            return "\n".join(connection.iterdump())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.installation.settings.state / "managed.db") as connection:
            return connection.execute(query).fetchall()

    def on_server(self, *command: str) -> str:
        result = self.demo.shell.run(self.demo.endpoint, command, timeout=600)
        return result.stdout

    def secrets(self) -> dict[str, str]:
        vault, settings = self.installation.vault, self.installation.settings
        server_id = self.demo.server["id"]
        keys = json.loads((settings.keys / "s3.json").read_text())
        found = {
            purpose.value: vault.secret(server_id, purpose).reveal()
            for purpose in (SecretPurpose.REPOSITORY_PASSWORD, SecretPurpose.GATEWAY_PASSWORD)
        }
        login = vault.secret(server_id, SecretPurpose.LOGIN_KEY).reveal()
        return {
            **found,
            "S3 secret key": keys["secret_key"],
            "login key": login.splitlines()[3],
            "API token": settings.api_token.read_text().strip(),
        }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    base = tmp_path_factory.mktemp("main-job")
    images = Settings().images
    settings = Settings(state_dir=base / "state", images_dir=images, listen_port=free_port())
    console = Console(width=120)
    build_missing_images(settings, console.print)
    watcher = Watcher()
    try:
        service = DemoService(settings, console.print)
        service.start()
        pid = int((settings.state / "service.pid").read_text())
        chaos = Chaos(pid)
        report = DemoReport.begin(base / "report.json", STEPS)
        demo = Demo(service.client(), report, console, chaos.observe)
        try:
            demo.run()
        finally:
            report.show(console)
        installation = Installation(settings, open_database(settings.database))
        document = json.loads(report.path.read_text())
        yield Run(installation, demo, chaos, document, watcher.stop(), pid)
    finally:
        watcher.stop()
        clean_up(settings, console.print)


def test_every_step_holds_although_workers_were_killed(run: Run) -> None:
    assert run.report["ok"]
    assert [step["name"] for step in run.report["steps"]] == list(STEPS)
    assert {step["status"] for step in run.report["steps"]} == {"ok"}
    assert set(run.chaos.killed) == {"mid-apt", "mid-playbook", "mid-backup", "mid-restore"}
    assert all(run.chaos.killed.values()), "each kill hit a process"


def test_nothing_ran_twice(run: Run) -> None:
    ended = run.rows("SELECT job_id, name FROM job_steps WHERE phase = 'do'")
    done = run.rows(
        "SELECT job_id, json_extract(data, '$.step') FROM events WHERE type='step_done'"
    )
    assert sorted(done) == sorted(ended)
    assert max(Counter(done).values()) == 1
    history = run.on_server("cat", "/var/log/apt/history.log")
    upgrades = [line for line in history.splitlines() if line.startswith("Upgrade: ")]
    assert len(upgrades) == 1, "the updates went in by one run of apt"
    runs = run.rows("SELECT result FROM job_steps WHERE name IN ('update', 'take', 'restore')")
    assert len(runs) == 3


def test_patch_kept_versions_before_and_after_and_rebooted_into_the_new_kernel(run: Run) -> None:
    patch = next(step for step in run.report["steps"] if step["name"] == "patch")["evidence"]
    assert patch["rebooted"]
    assert patch["kernel_before"] != patch["kernel_after"]
    assert len(patch["packages"]) >= 10
    assert all(before != after for before, after in patch["packages"].values())


def test_every_file_equalled_the_manifest_but_those_that_the_restore_names(run: Run) -> None:
    restored = next(step for step in run.report["steps"] if step["name"] == "restore")["evidence"]
    backup = next(step for step in run.report["steps"] if step["name"] == "backup")["evidence"]
    assert restored["checked"] == restored["equal"] + len(restored["rewritten"])
    assert restored["checked"] > 10_000
    assert all(item["path"].startswith("/boot/") for item in restored["rewritten"])
    assert backup["verification"]["paths_compared"] == restored["checked"]


def test_no_worker_left_a_playbook_restic_or_rescue_session_behind(run: Run) -> None:
    ours = {run.service_pid, *descendants(run.service_pid, running_processes())}
    strays = [
        argv
        for process in running_processes()
        if process.pid not in ours
        and (argv := argv_of(process.pid))
        and str(run.installation.settings.state).encode() in argv
        and b"qemu" not in argv
        and b"libvirt" not in argv
        and b"virtlogd" not in argv
    ]
    assert strays == []
    hypervisor = run.installation.world.hypervisor_of(run.demo.server["node_id"])
    assert dict(hypervisor.rescue_sessions()) == {}
    assert run.rows("SELECT id FROM rescue_sessions WHERE ended_at IS NULL") == []


def test_no_secret_is_in_command_lines_events_results_or_logs(run: Run) -> None:
    recorded = run.recorded()
    logs = "\n".join(
        path.read_text(errors="replace")
        for path in (run.installation.settings.state / "log").glob("*.log")
    )
    for name, secret in run.secrets().items():
        assert secret not in recorded, f"{name} is in the database in the clear"
        assert secret not in logs, f"{name} is in a log"
        assert secret.encode() not in run.command_lines, f"{name} was on a command line"


def test_no_secret_is_on_the_servers_disk_or_in_its_units(run: Run) -> None:
    for name, secret in run.secrets().items():
        needle = "/dev/shm/needle"
        run.demo.shell.write_file(run.demo.endpoint, needle, secret.encode() + b"\n", 0o600)
        found = run.on_server(
            *("grep", "-rlsFf", needle, "/", "--exclude-dir=proc", "--exclude-dir=sys"),
            *("--exclude-dir=dev", "--binary-files=text", "--devices=skip"),
        )
        assert found == "", f"{name} is on the server: {found}"
        units = run.on_server("systemctl", "show", "*")
        assert secret not in units, f"{name} is in a unit's properties"
    run.on_server("rm", "/dev/shm/needle")
