"""The main job on a real VPS, started by the three kinds of people who start it.

Support staff has a server created, hardened, backed up and rescued over the HTTP API. It is patched
because its window opens, and restored because a customer's ticket asks for it and staff approves.
In between the customer's root destroys it; at the end it is proven to be what it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Console

from managed.client import ManagedClient
from managed.domain.connections import Endpoint, KeyPair
from managed.domain.errors import CommandFailed, ServerUnreachable
from managed.domain.text import without_controls
from managed.drivers.ssh.keys import new_key_pair
from managed.drivers.ssh.shell import SshShell
from managed.lab.breakage import break_server
from managed.lab.demo_helpdesk import (
    TICKET,
    DemoHelpdesk,
    job_of_the_clock,
    make_customers,
    open_window,
)
from managed.lab.demo_report import DemoReport
from managed.lab.demo_site import SiteContent, install_site, site_content
from managed.lab.job_display import JobDisplay

STEPS: Final = (
    "create",
    "patch",
    "harden",
    "backup",
    "destroy",
    "ticket",
    "rescue",
    "restore",
    "proof",
)
SERVER_NAME: Final = "bakery"
_SERVER: Final = {
    "name": SERVER_NAME,
    "operating_system": "debian-12",
    "vcpus": 2,
    "memory_mib": 1024,
    "disk_gib": 6,
}
# A destroyed server is watched for as many times the seconds that its first boot took.
_BOOTS_TO_WATCH: Final = 2.0


@dataclass
class Demo:
    """One run, step by step. `observe` sees every event of every job, with the job's kind."""

    client: ManagedClient
    helpdesk: DemoHelpdesk
    report: DemoReport
    console: Console
    observe: Callable[[str, Mapping[str, Any]], None] = lambda _kind, _event: None

    def __post_init__(self) -> None:
        self.shell = SshShell()
        self.customer: KeyPair = new_key_pair()
        self.server: dict[str, Any] = {}
        self.boot_seconds = 0.0
        self.request_id = ""

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
        with self.report.step("ticket") as evidence:
            self.ticket(evidence)
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
        self.boot_seconds = _seconds(job, "boot")
        make_customers(self.client, self.server["id"])
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
        """Nobody asks for it: a window of the customer's plan opens."""
        window = open_window(self.client, "patch")
        opens_at = window["next_opening"]["starts_at"]
        self.console.print(f"waiting for the window, which opens at {opens_at}, and for its survey")
        job = self._follow("patch", job_of_the_clock(self.client, self.server["id"], "patch"))
        (survey,) = self.client.get("/v1/surveys", server_id=self.server["id"])["items"]
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
            "started_by": job["requested_by"],
            "window": window["rule"],
            "surveyed": survey["detail"],
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
        seconds = _BOOTS_TO_WATCH * self.boot_seconds
        self.console.print(f"watching for {seconds:.0f} s that it does not come back")
        self._require_silence(seconds)
        evidence |= {
            "summary": f"does not boot any more: watched for {seconds:.0f} s",
            "boot_took": self.boot_seconds,
            "silent_for": seconds,
            **found,
        }

    def ticket(self, evidence: dict[str, Any]) -> None:
        """The customer writes; the text becomes a request, and runs nothing by itself."""
        jobs_before = self._jobs()
        told = self.helpdesk.write(self.client.base_url, TICKET, self.server["name"])
        self.request_id = told["request_id"]
        request = self.client.get(f"/v1/requests/{self.request_id}")
        if self._jobs() != jobs_before:
            raise CommandFailed("the ticket has started a job before anybody approved it")
        evidence |= {
            "summary": f"proposed: {request['proposal']['kind']}, {request['status']}",
            "request_id": self.request_id,
            "text": TICKET,
            "proposal": request["proposal"],
            "why": request["why"],
            "status": request["status"],
        }

    def rescue(self, evidence: dict[str, Any]) -> None:
        job = self._job("rescue", {"hours": 2})
        booted = _result(job, "boot_rescue")
        evidence |= {
            "summary": "rescue image over the server's own disk, SSH pinned",
            "session_id": booted["session_id"],
            "host_key": booted["host_key"],
        }

    def restore(self, evidence: dict[str, Any]) -> None:
        """Staff approves what the ticket asks for; the answer goes back to the helpdesk."""
        approved = self.client.post(f"/v1/requests/{self.request_id}/approve")
        job = self._follow("restore", self.client.get(f"/v1/jobs/{approved['job_id']}"))
        answer = self.helpdesk.answer()
        restored = _result(job, "restore")
        loaded = _result(job, "load_databases")["databases"]
        rewritten = restored["rewritten"]
        evidence |= {
            "summary": f"{restored['checked']} paths compared, {len(rewritten)} rewritten, "
            f"{sum(entry['databases'] for entry in loaded)} databases loaded",
            **restored,
            "databases": loaded,
            "approved_by": approved["decision"]["by"],
            "answer": answer["body"],
        }
        self.console.print("written by the restore itself; all else equals the manifest:")
        written = [f"{item['path']}: {item['reason']}" for item in rewritten]
        for line in (*written, *restored["written_outside_files"]):
            self.console.print(f"  {without_controls(line)}", markup=False)

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

    @property
    def site_url(self) -> str:
        """Where this machine sees the server's web site."""
        web = next(f for f in self.server["forwards"] if f["guest_port"] == 80)
        return f"http://127.0.0.1:{web['host_port']}/"

    def content(self) -> SiteContent:
        return site_content(self.shell, self.endpoint, self.site_url)

    def _jobs(self) -> list[str]:
        found = self.client.get("/v1/jobs", server_id=self.server["id"], limit=200)["items"]
        return [job["id"] for job in found]

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

    def _require_silence(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.shell.fresh_login(self.endpoint, timeout=5)
            except ServerUnreachable:
                time.sleep(1)
                continue
            raise CommandFailed("the server still answers: it is not destroyed")


def _done_step(job: Mapping[str, Any], step: str) -> dict[str, Any]:
    return next(s for s in job["steps"] if s["name"] == step and s["status"] == "done")


def _result(job: Mapping[str, Any], step: str) -> dict[str, Any]:
    """The recorded result of a job's step."""
    result: dict[str, Any] = _done_step(job, step)["result"]
    return result


def _seconds(job: Mapping[str, Any], step: str) -> float:
    """From a step's start to its recorded end, waiting included."""
    record = _done_step(job, step)
    began, ended = (datetime.fromisoformat(record[key]) for key in ("started_at", "finished_at"))
    return (ended - began).total_seconds()
