"""`make demo`: the main job on a real VPS, asked for through the HTTP API as support staff would.

A server is created, patched, hardened, backed up, destroyed, rescued, restored, and proven to be
what it was. Every step but `destroy` is a job that a Celery worker carries out; `destroy` is what
the customer's root does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

from managed.client import ManagedClient
from managed.domain.connections import Endpoint, KeyPair
from managed.domain.errors import CommandFailed, ManagedError, ServerUnreachable, Unavailable
from managed.drivers.ssh.keys import new_key_pair
from managed.drivers.ssh.shell import SshShell
from managed.lab.breakage import break_server
from managed.lab.demo_images import build_missing_images
from managed.lab.demo_report import DemoReport
from managed.lab.demo_site import SiteContent, install_site, site_content
from managed.lab.job_display import JobDisplay
from managed.lab.libvirtd import PrivateLibvirtd
from managed.lab.ports import free_port
from managed.lab.service import service_url
from managed.settings import Settings

STEPS: Final = (
    "create",
    "patch",
    "harden",
    "backup",
    "destroy",
    "rescue",
    "restore",
    "proof",
)
_SERVER: Final = {
    "name": "bakery",
    "operating_system": "debian-12",
    "vcpus": 2,
    "memory_mib": 1024,
    "disk_gib": 6,
}
_START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 90.0
_SILENCE_SECONDS: Final = 150.0


def run_demo(settings: Settings, *, keep: bool) -> int:
    """Run the demo in var/demo; 0 only when every step held. Cleans up, also after Ctrl-C."""
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    demo_settings = settings.model_copy(
        update={
            "state_dir": settings.state / "demo" / "state",
            "images_dir": settings.images,
            "listen_port": settings.listen_port if _is_free(settings) else free_port(),
        }
    )
    report = DemoReport.begin(settings.state / "demo" / "report.json", STEPS)
    kept = False
    try:
        clean_up(demo_settings, console.print)
        build_missing_images(settings, console.print)
        service = DemoService(demo_settings, console.print)
        service.start()
        Demo(service.client(), report, console).run()
        kept = keep
    except KeyboardInterrupt:
        console.print("[yellow]interrupted[/]")
    except ManagedError as error:
        console.print(f"[red]{error.message}[/]" + (f"  {error.hint}" if error.hint else ""))
    finally:
        if kept:
            console.print(_how_to_look(demo_settings))
        else:
            clean_up(demo_settings, console.print)
    report.show(console)
    console.print(f"report: {report.path}")
    return 0 if report.is_ok else 1


@dataclass
class Demo:
    """One run, step by step. `observe` sees every event of every job, with the job's kind."""

    client: ManagedClient
    report: DemoReport
    console: Console
    observe: Callable[[str, Mapping[str, Any]], None] = lambda _kind, _event: None

    def __post_init__(self) -> None:
        self.shell = SshShell()
        self.customer: KeyPair = new_key_pair()
        self.server: dict[str, Any] = {}

    def run(self) -> None:
        with self.report.step("create") as evidence:
            content = self.create(evidence)
        with self.report.step("patch") as evidence:
            self.patch(evidence)
        with self.report.step("harden") as evidence:
            self.harden(evidence)
        with self.report.step("backup") as evidence:
            self.backup(evidence)
        with self.report.step("destroy") as evidence:
            self.destroy(evidence)
        with self.report.step("rescue") as evidence:
            self.rescue(evidence)
        with self.report.step("restore") as evidence:
            self.restore(evidence)
        with self.report.step("proof") as evidence:
            self.prove(evidence, content)

    def create(self, evidence: dict[str, Any]) -> SiteContent:
        order = {**_SERVER, "authorized_keys": [self.customer.public_key]}
        answer = self.client.post("/v1/servers", order, idempotency_key="demo-create")
        job = self._follow("create", answer["job"])
        self.server = self.client.get(f"/v1/servers/{answer['server']['id']}")
        self.console.print("the customer installs web server and database")
        install_site(self.shell, self.endpoint)
        content = self.content()
        health = _result(job, "check")["health"]
        evidence |= {
            "summary": f"{health['kernel']}, web site and {content.rows} rows",
            "server_id": self.server["id"],
            "kernel": health["kernel"],
            "content": content.as_json(),
        }
        return content

    def patch(self, evidence: dict[str, Any]) -> None:
        job = self._job("patch", {"reboot": "when-needed"})
        update, reboot = _result(job, "update"), _result(job, "reboot")
        before, after = update["packages_before"], update["packages_after"]
        changed = {
            name: [before.get(name), version]
            for name, version in after.items()
            if before.get(name) != version
        }
        kernels = [
            _result(job, step)["health"]["kernel"] for step in ("check_before", "check_after")
        ]
        if not changed:
            raise CommandFailed("no package was updated: there is nothing to show")
        evidence |= {
            "summary": f"{len(changed)} packages, kernel {kernels[0]} to {kernels[1]}",
            "packages": changed,
            "kernel_before": kernels[0],
            "kernel_after": kernels[1],
            "rebooted": reboot["rebooted"],
            "reasons": reboot["reasons"],
        }

    def harden(self, evidence: dict[str, Any]) -> None:
        job = self._job("harden", {})
        evidence |= {
            "summary": "second login and tunnel work behind the firewall",
            "applied": _result(job, "apply"),
            "second_login": _result(job, "second_login"),
            "forwarding": _result(job, "check_forwarding"),
        }

    def backup(self, evidence: dict[str, Any]) -> None:
        job = self._job("backup", {})
        taken, verified = _result(job, "take"), _result(job, "verify")
        evidence |= {
            "summary": f"{taken['files']} paths, {taken['bytes'] // 2**20} MiB, verified",
            "snapshot_id": taken["snapshot_id"],
            "databases": taken["databases"],
            "moved_while_running": taken["moved_paths"],
            "verification": verified,
            "warnings": job["warnings"],
        }

    def destroy(self, evidence: dict[str, Any]) -> None:
        """The customer's root erases partition table, /boot and /etc and pulls the plug."""
        found = break_server(self.shell, self.endpoint, self.server["disk_serial"])
        self._require_silence()
        evidence |= {"summary": "does not boot any more", **found}

    def rescue(self, evidence: dict[str, Any]) -> None:
        job = self._job("rescue", {"hours": 2})
        booted = _result(job, "boot_rescue")
        evidence |= {
            "summary": "rescue image over the server's own disk, SSH pinned",
            "session_id": booted["session_id"],
            "host_key": booted["host_key"],
        }

    def restore(self, evidence: dict[str, Any]) -> None:
        job = self._job("restore", {})
        restored = _result(job, "restore")
        rewritten = restored["rewritten"]
        evidence |= {
            "summary": f"{restored['checked']} paths compared, {len(rewritten)} rewritten",
            **restored,
        }
        self.console.print("rewritten by the restore itself, all else equals the manifest:")
        for item in rewritten:
            self.console.print(f"  {item['path']}: {item['reason']}", markup=False)

    def prove(self, evidence: dict[str, Any], before: SiteContent) -> None:
        job = self._job("check", {"urls": ["http://127.0.0.1/"]})
        after = self.content()
        if after != before:
            raise CommandFailed(f"the content differs: {before} became {after}")
        evidence |= {
            "summary": f"same page, same {after.rows} rows, health checks pass",
            "before": before.as_json(),
            "after": after.as_json(),
            "health": _result(job, "check")["health"],
        }

    @property
    def endpoint(self) -> Endpoint:
        """The customer's own way in."""
        return Endpoint(
            address=self.server["address"],
            port=self.server["ssh_port"],
            user="root",
            host_key=self.server["host_key"],
            private_key=self.customer.private_key,
        )

    def content(self) -> SiteContent:
        web = next(f for f in self.server["forwards"] if f["guest_port"] == 80)
        return site_content(self.shell, self.endpoint, f"http://127.0.0.1:{web['host_port']}/")

    def _job(self, kind: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        path = f"/v1/servers/{self.server['id']}/jobs"
        answer = self.client.post(
            path, {"kind": kind, **parameters}, idempotency_key=f"demo-{kind}"
        )
        return self._follow(kind, answer)

    def _follow(self, title: str, job: Mapping[str, Any]) -> dict[str, Any]:
        with JobDisplay(self.console, title) as display:

            def on_event(event: Mapping[str, Any]) -> None:
                display.show(event)
                self.observe(title, event)

            ended: dict[str, Any] = self.client.wait_for_job(job["id"], on_event)
        if ended["status"] != "succeeded":
            detail = (ended.get("error") or {}).get("detail", "")
            raise CommandFailed(f"{title} {ended['status']}: {detail}", job_id=ended["id"])
        return ended

    def _require_silence(self) -> None:
        """A server that can boot answers within this time even without KVM."""
        deadline = time.monotonic() + _SILENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                self.shell.fresh_login(self.endpoint, timeout=5)
            except ServerUnreachable:
                time.sleep(1)
                continue
            raise CommandFailed("the server still answers: it is not destroyed")


@dataclass
class DemoService:
    """The embedded service as a process of its own, so that KEEP=1 can leave it running."""

    settings: Settings
    say: Callable[[str], None]

    def start(self) -> None:
        log = self.settings.state / "log" / "service.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **self.settings.environment(),
            "MANAGED_LISTEN_PORT": str(self.settings.listen_port),
        }
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "managed", "serve"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-800:]
                raise Unavailable(f"the service did not start:\n{tail}")
            time.sleep(0.2)
        self.say(f"the service is up on {service_url(self.settings)}")

    def client(self) -> ManagedClient:
        return ManagedClient(
            service_url(self.settings), self.settings.api_token.read_text().strip()
        )

    def _answers(self) -> bool:
        """Up means that everything is: the service says so after its last part."""
        log = self.settings.state / "log" / "service.log"
        if "managed serves on" not in log.read_text(errors="replace"):
            return False
        try:
            return httpx.get(f"{service_url(self.settings)}/healthz", timeout=2).is_success
        except httpx.HTTPError:
            return False


def clean_up(settings: Settings, say: Callable[[str], None]) -> None:
    """End service, servers and private libvirt daemon of an earlier or this demo; remove its state.

    Also after a crash: everything is found through the state folder.
    """
    if not settings.state.exists():
        return
    pid = _service_pid(settings.state / "service.pid")
    if pid is not None:
        say("ending the service")
        _end_process(pid)
    if os.geteuid() == 0:
        PrivateLibvirtd(settings.state).stop_everything()
    shutil.rmtree(settings.state, ignore_errors=True)
    shutil.rmtree(settings.runtime, ignore_errors=True)


def _service_pid(path: Path) -> int | None:
    """The running service's process id; None when there is none (its lock is free)."""
    try:
        pid = int(path.read_text().strip() or 0)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"managed" in command and b"serve" in command else None


def _end_process(pid: int) -> None:
    """TERM and wait; KILL when that takes too long. The service's children die with it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = threading.Event()
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while Path(f"/proc/{pid}").exists() and not _is_zombie(pid):
            if time.monotonic() > deadline:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return
            ended.wait(0.1)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


def _is_free(settings: Settings) -> bool:
    try:
        httpx.get(f"{service_url(settings)}/healthz", timeout=1)
    except httpx.HTTPError:
        return True
    return False


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _result(job: Mapping[str, Any], step: str) -> dict[str, Any]:
    """The recorded result of a job's step."""
    record = next(s for s in job["steps"] if s["name"] == step and s["status"] == "done")
    result: dict[str, Any] = record["result"]
    return result


def _how_to_look(settings: Settings) -> str:
    environment = (
        f"MANAGED_STATE_DIR={settings.state} MANAGED_IMAGES_DIR={settings.images} "
        f"MANAGED_LISTEN_PORT={settings.listen_port}"
    )
    return (
        f"\nService and server are still up. To look at them:\n"
        f"  export {environment}\n"
        f"  .venv/bin/managed servers list\n"
        f"  .venv/bin/managed jobs list\n"
        f"  .venv/bin/managed lab ssh {_SERVER['name']}\n"
        f"  {service_url(settings)}/docs   (token: {settings.api_token})\n"
        f"To end them: make demo-down"
    )
