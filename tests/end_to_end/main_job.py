"""One run of the demo's steps with workers killed in the middle, and what it left."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from managed.domain.secrets import SecretPurpose
from managed.drivers.processes import descendants, identity_of, is_running, running_processes
from managed.lab.demo import STEPS, Demo
from managed.lab.demo_helpdesk import demo_helpdesk
from managed.lab.demo_images import build_missing_images
from managed.lab.demo_report import DemoReport
from managed.lab.demo_service import DemoService, clean_up
from managed.lab.demo_site import SiteContent
from managed.lab.ports import free_port
from managed.settings import Settings
from managed.storage.database import open_database
from managed.wiring import Installation
from tests.end_to_end import odd_files
from tests.support.clean_after import cleaned_after_death
from tests.support.embedded import argv_of, parts_of, with_embedded_storage

WORKER, CLOCK = b"celery", b"workers.schedule"
# After a kill the successor comes when the lease has run out and the clock sends the job again.
_SECONDS_TO_DIE = 20.0
SOONER = {"MANAGED_LEASE_SECONDS": "15", "MANAGED_RESEND_SECONDS": "10"}


@dataclass
class Chaos:
    """Kills a part of the service, once per moment; the supervisor starts it again."""

    service_pid: int
    killed: dict[str, list[int]] = field(default_factory=dict)
    left_behind: dict[str, list[bytes]] = field(default_factory=dict)
    pause: threading.Event = field(default_factory=threading.Event)

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
        with them by itself, or is noted.
        """
        pids, processes = parts_of(self.service_pid, what), running_processes()
        below = [child for pid in pids for child in descendants(pid, processes)]
        started = {child: argv_of(child.pid) for pid in below if (child := identity_of(pid))}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _SECONDS_TO_DIE
        while (left := [c for c in started if is_running(c)]) and time.monotonic() < deadline:
            self.pause.wait(0.1)
        if left:
            self.left_behind[what.decode()] = [b" ".join(started[child]) for child in left]
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
            self.seen |= {b" ".join(argv_of(process.pid)) for process in running_processes()}

    def stop(self) -> bytes:
        self.stopped.set()
        self.thread.join()
        return b"\n".join(self.seen)


@dataclass
class Findings:
    """What was found on the server while there was something to find."""

    odd_files_before: Mapping[str, Any] = field(default_factory=dict)
    odd_files_after: Mapping[str, Any] = field(default_factory=dict)
    during_backup: str = ""
    files_with_secrets: list[str] = field(default_factory=list)


PLANTED = "/var/tmp/planted"
NEEDLES = "/dev/shm/needles"


class WatchedDemo(Demo):
    """The demo, whose customer also keeps files that backups tend to lose, and whose server is
    searched for secrets: its processes and units in the middle of the backup, its disk when patch,
    hardening and backup have been there, and before it is destroyed.
    """

    findings: Findings
    installation: Installation

    def create(self, evidence: dict[str, Any]) -> SiteContent:
        content = super().create(evidence)
        self._python(odd_files.MAKE)
        self.findings.odd_files_before = json.loads(self._python(odd_files.DESCRIBE))
        return content

    def look_into_backup(self) -> None:
        if not self.findings.during_backup:
            look = "systemctl show '*'; ps -eww -o args"
            self.findings.during_backup = self.on_server("sh", "-c", look)

    def destroy(self, evidence: dict[str, Any]) -> None:
        """All secrets are looked for at once, because reading the whole disk takes long; one is
        planted, so that a search that finds nothing is noticed.
        """
        secrets = list(self.secrets().values())
        write = self.shell.write_file
        write(self.endpoint, NEEDLES, "".join(f"{x}\n" for x in secrets).encode(), 0o600)
        write(self.endpoint, PLANTED, f"between {secrets[-1]} others".encode(), 0o600)
        found = self.on_server(
            *("grep", "-rlsFf", NEEDLES, "/", "--exclude-dir=proc", "--exclude-dir=sys"),
            *("--exclude-dir=dev", "--binary-files=text", "--devices=skip"),
            # What the kernel may put there, of any process, is nobody's to decide.
            f"--exclude={odd_files.SWAP_FILE.lstrip('/')}",
        )
        self.findings.files_with_secrets = found.splitlines()
        super().destroy(evidence)

    def prove(self, evidence: dict[str, Any], before: SiteContent) -> None:
        super().prove(evidence, before)
        self.findings.odd_files_after = json.loads(self._python(odd_files.DESCRIBE))

    def on_server(self, *command: str) -> str:
        return self.shell.run(self.endpoint, command, timeout=900).stdout

    def secrets(self) -> dict[str, str]:
        vault, settings = self.installation.vault, self.installation.settings
        server_id = self.server["id"]
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

    def _python(self, program: str) -> str:
        ended = self.shell.run(self.endpoint, ("python3", "-"), stdin=program.encode(), timeout=300)
        assert ended.exit_status == 0, ended.stderr
        return ended.stdout


@dataclass
class Run:
    """What one run left for the tests."""

    installation: Installation
    demo: WatchedDemo
    chaos: Chaos
    report: Mapping[str, Any]
    command_lines: bytes
    service_pid: int

    def evidence(self, step: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = next(
            entry["evidence"] for entry in self.report["steps"] if entry["name"] == step
        )
        return found

    def recorded(self) -> str:
        """Everything that the database holds, as text."""
        with sqlite3.connect(self.installation.settings.state / "managed.db") as connection:
            return "\n".join(connection.iterdump())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.installation.settings.state / "managed.db") as connection:
            return connection.execute(query).fetchall()


@contextmanager
def main_job_run(base: Path) -> Iterator[Run]:
    """Service and server stay up inside; everything is removed afterwards."""
    console = Console(width=120)
    watcher = Watcher()
    with ExitStack() as at_the_end:
        environment = at_the_end.enter_context(pytest.MonkeyPatch.context())
        for name, value in SOONER.items():
            environment.setenv(name, value)
        settings = Settings(
            state_dir=base / "state", images_dir=Settings().images, listen_port=free_port()
        )
        build_missing_images(settings, console.print)
        at_the_end.enter_context(cleaned_after_death(settings.state))
        at_the_end.callback(clean_up, settings, console.print)
        at_the_end.callback(watcher.stop)
        helpdesk = at_the_end.enter_context(demo_helpdesk())
        service = DemoService(helpdesk.known_to(settings), console.print)
        service.start()
        pid = int((settings.state / "service.pid").read_text())
        installation = Installation(
            with_embedded_storage(settings, pid), open_database(settings.database)
        )
        chaos = Chaos(pid)
        report = DemoReport.begin(base / "report.json", STEPS)

        def observe(kind: str, event: Mapping[str, Any]) -> None:
            if kind == "backup" and event["type"] == "backup_progress":
                demo.look_into_backup()
            chaos.observe(kind, event)

        demo = WatchedDemo(service.client(), helpdesk, report, console, observe)
        demo.findings, demo.installation = Findings(), installation
        try:
            demo.run()
        finally:
            report.show(console)
        document = json.loads(report.path.read_text())
        yield Run(installation, demo, chaos, document, watcher.stop(), pid)
