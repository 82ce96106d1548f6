"""Servers of the matrix: cells under management, with updates that wait and ask for a reboot."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from managed.domain.jobs import JobKind
from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell
from tests.kill_matrix.boundaries import Holder
from tests.kill_matrix.victims import Killer
from tests.support.apt_repository import AptRepository, Package
from tests.support.installation import LiveInstallation
from tests.support.waiting import wait_until

PACKAGES = ("shop", "shop-lib")
RESTIC = "usr/local/lib/managed/restic"
BOOTS = "var/log/boots"
_JOB_SECONDS = 300.0

_COUNT_BOOTS = f"""[Unit]
Description=Note every boot
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /proc/sys/kernel/random/boot_id >> /{BOOTS}'
[Install]
WantedBy=multi-user.target
"""
# A package that asks for a reboot, and takes its time for as long as it is held.
_HELD = "root/packages-are-held"
_POSTINST = f"""if [ "$1" = configure ]; then
    timeout {_JOB_SECONDS:.0f} sh -c 'while [ -e /{_HELD} ]; do sleep 0.1; done'
    touch /run/reboot-required
fi
"""


@dataclass
class ManagedCell:
    """A cell as a server of the installation. `version` is that of the packages it should have."""

    installation: LiveInstallation
    killer: Killer
    cell: Cell
    repository: AptRepository
    server_id: str
    holder: Holder
    version: int = 1
    boots: int = 0

    def prepare(self, kind: JobKind) -> None:
        """Give the next job of this kind something real to do in each of its steps."""
        if kind is JobKind.PATCH:
            self.version += 1
            self.repository.publish(_packages(self.version))
        else:
            (self.cell.root_dir / RESTIC).unlink(missing_ok=True)
            (self.cell.root_dir / "root/changing").write_text(str(uuid.uuid4()))
        self.boots = self.boots_noted()

    def hold_packages(self) -> None:
        """From now on an update does not come to its end; to be called before the job begins."""
        (self.cell.root_dir / _HELD).touch()

    def let_packages_go(self) -> None:
        (self.cell.root_dir / _HELD).unlink(missing_ok=True)

    def submit(self, kind: JobKind) -> str:
        """Ask for the job until the API has answered: the key makes it one job."""
        key = str(uuid.uuid4())
        return str(
            self.ask(
                "POST",
                f"/v1/servers/{self.server_id}/jobs",
                json={"kind": kind.value},
                headers={"Idempotency-Key": key},
            )["id"]
        )

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """Ask the API, again while it or the database is away."""
        deadline = time.monotonic() + _JOB_SECONDS
        while True:
            try:
                with self.installation.client() as client:
                    response = client.request(method, path, **given)
                if response.status_code < 500:
                    response.raise_for_status()
                    return response.json()
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"{method} {path}: no answer")
            time.sleep(0.2)

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/v1/jobs/{job_id}")
        return found

    def wait_for_end(self, job_id: str, timeout: float = _JOB_SECONDS) -> dict[str, Any]:
        def is_final() -> bool:
            return self.job(job_id)["status"] in ("succeeded", "failed", "cancelled")

        wait_until(is_final, timeout=timeout, what=f"the job {job_id} ends")
        return self.job(job_id)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All of the job so far."""
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["seq"] if found else 0
            path = f"/v1/jobs/{job_id}/events?after={after}"
            page = self.ask("GET", path, headers={"Accept": "application/json"})["items"]
            if not page:
                return found
            found += page

    def boots_noted(self) -> int:
        path = self.cell.root_dir / BOOTS
        return len(path.read_text().splitlines()) if path.exists() else 0


def managed_cell(
    installation: LiveInstallation, killer: Killer, cell: Cell, repository: AptRepository
) -> ManagedCell:
    """Bring a cell under management as staff do it: enrolled over the API, our key delivered."""
    _prepare_root(cell, repository)
    body = {
        "name": cell.name,
        "address": cell.address,
        "ssh_port": cell.port,
        "ssh_user": "root",
        "host_key": cell.host_key,
        "operating_system": "debian-12",
    }
    with installation.client() as client:
        enrolled = client.post("/v1/servers/enrol", json=body).raise_for_status().json()
    keys = cell.root_dir / "root/.ssh/authorized_keys"
    keys.write_text(keys.read_text() + enrolled["authorized_keys_line"] + "\n")
    server_id = enrolled["server"]["id"]
    holder = Holder(installation.cluster.connection, server_id)
    server = ManagedCell(installation, killer, cell, repository, server_id, holder)
    job = server.wait_for_end(server.submit(JobKind.ENROL))
    if job["status"] != "succeeded":
        raise AssertionError(f"{cell.name} cannot be enrolled: {json.dumps(job['error'])}")
    return server


def _prepare_root(cell: Cell, repository: AptRepository) -> None:
    """Its only source of packages is ours, and it notes its boots."""
    root = cell.root_dir
    repository.publish(_packages(1))
    (root / "etc/apt/sources.list").write_text(repository.source)
    (root / "etc/systemd/system/count-boots.service").write_text(_COUNT_BOOTS)
    install = f"systemctl enable count-boots && apt-get update && apt-get -y install {PACKAGES[0]}"
    done = SshShell().run(cell.endpoint, ("sh", "-c", install), timeout=120)
    if done.exit_status != 0:
        raise AssertionError(f"{cell.name}: {done.stderr}")


def _packages(version: int) -> list[Package]:
    """The program needs its library of the same version: they go together or not at all."""
    shop, library = PACKAGES
    return [
        Package(shop, str(version), f"Depends: {library} (= {version})\n", _POSTINST),
        Package(library, str(version)),
    ]
