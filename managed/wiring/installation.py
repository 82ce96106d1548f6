"""One installation, opened: what it needs to carry jobs out, and how it is prepared."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path

from images.rescue import RESCUE_COMMAND_LINE
from managed.domain.jobs import CLOCKS_KEYS, Job, JobKind
from managed.domain.rescue import RescueSession
from managed.domain.secrets import new_password
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.drivers.children import LocalChildren
from managed.drivers.libvirt.driver import LibvirtHypervisor
from managed.drivers.libvirt.node import Acceleration, LibvirtNode
from managed.drivers.restic.commands import ResticSettings
from managed.drivers.restic.repositories import ResticRepositories
from managed.drivers.runs import SshPolls, SshRuns
from managed.drivers.ssh.keys import new_key_pair, public_key_of
from managed.drivers.ssh.transfers import SshTransfers
from managed.drivers.ssh.tunnels import SshTunnels
from managed.ports import Hypervisor
from managed.settings import Settings
from managed.storage.database import migrate, open_database
from managed.storage.events import EventLog
from managed.storage.job_queue import NewJob
from managed.storage.leases import LeasedJobs
from managed.storage.vault import (
    create_master_key,
    write_new_private_file,
)
from managed.wiring.from_settings import (
    apt_sources_text,
)
from managed.wiring.outside import Outside
from managed.wiring.records import utc_now
from managed.workflows.engine import Engine
from managed.workflows.registry import WORKFLOWS, current_workflow
from managed.workflows.world import Sources, World

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"


def seconds_since_boot() -> float:
    """With the time that this machine was suspended: others may have taken leases over in it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Installation(Outside):
    """One installation of managed, opened: its database, its drivers, its settings."""

    @cached_property
    def world(self) -> World:
        return World(
            servers=self.inventory,
            vault=self.vault,
            rescue_sessions=self.sessions,
            snapshots=self.catalogue,
            hypervisor_of=lru_cache(maxsize=None)(self._hypervisor),
            shell=self.shell,
            runs=SshRuns(self.shell),
            polls=SshPolls(self.shell),
            tunnels=SshTunnels(self.shell),
            transfers=SshTransfers(),
            playbooks=AnsiblePlaybooks(PLAYBOOKS, self.settings.runtime / "playbooks"),
            repositories=ResticRepositories(
                ResticSettings(
                    binary=self.settings.restic_binary,
                    cache_directory=self.settings.state / "cache" / "restic",
                    store=self.bucket_settings,
                ),
                self.bucket,
            ),
            gateway=self.gateway,
            objects=self.bucket,
            sources=self._sources(),
            restic_path=str(self.settings.restic_binary),
            new_key_pair=new_key_pair,
            public_key=public_key_of,
        )

    def engine(
        self,
        owner: str,
        send: Callable[[str], None],
        ended: Callable[[Job], None],
        stopping: Callable[[], bool],
    ) -> Engine:
        """An engine that claims jobs as `owner`."""
        return Engine(
            store=LeasedJobs(self.database),
            workflows=WORKFLOWS,
            world=self.world,
            children=LocalChildren(),
            clock=self.clock,
            stopwatch=seconds_since_boot,
            owner=owner,
            lease_for=timedelta(seconds=self.settings.lease_seconds),
            send=send,
            ended=ended,
            stopping=stopping,
        )

    def new_job(
        self,
        server_id: str,
        kind: JobKind,
        parameters: dict[str, object],
        requested_by: str,
        run_key: str | None = None,
        start_by: datetime | None = None,
    ) -> NewJob:
        """A job of the present version of its workflow."""
        workflow = current_workflow(kind)
        return NewJob(
            server_id=server_id,
            kind=kind,
            workflow_version=workflow.version,
            parameters=parameters,  # type: ignore[arg-type]
            time_limit=workflow.time_limit,
            requested_by=requested_by,
            run_key=run_key,
            start_by=start_by,
        )

    def end_abandoned_session(self, session: RescueSession, after: Job | None = None) -> Job:
        """A rescue session that nobody ended in time is ended by a job of the clock's. `after` is
        the last one that could not: whoever else follows on the same one gets AlreadyExists.
        """
        run_key = f"{CLOCKS_KEYS}{session.session_id}:{after.job_id if after else 'first'}"
        new = self.new_job(session.server_id, JobKind.UNRESCUE, {}, "clock", run_key)
        return self.queue.submit(new, self.clock())

    def _hypervisor(self, node_id: str) -> Hypervisor:
        node = self.inventory.node(node_id)
        return LibvirtHypervisor(
            LibvirtNode(
                uri=node.libvirt_uri,
                storage_dir=Path(node.storage_dir),
                images_dir=self.settings.images,
                console_dir=Path(node.storage_dir) / "consoles",
                state_dir=self.settings.state / "nodes" / node_id,
                acceleration=Acceleration(self.settings.acceleration),
                rescue_command_line=RESCUE_COMMAND_LINE,
            )
        )

    def _sources(self) -> Sources:
        return Sources(
            apt_sources=lambda release: apt_sources_text(self.settings, release),
            apt_proxy=self.settings.lab_apt_proxy,
        )


def prepare_installation(settings: Settings) -> None:
    """Make folders, keys and schema. Done once, before the processes of the service start."""
    settings.state.mkdir(parents=True, exist_ok=True)
    create_master_key(settings.master_key)
    create_api_token(settings.api_token)
    create_api_token(settings.metrics_token)
    database = open_database(settings.database)
    migrate(database)
    EventLog(database).prepare_partitions(utc_now())
    database.dispose()


def create_api_token(path: Path) -> None:
    """Write a new bearer token, readable by us only; an existing one is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new_private_file(path, new_password().reveal().encode() + b"\n")


def open_installation(settings: Settings) -> Installation:
    """Open the installation that these settings describe; it has been prepared."""
    settings.runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Installation(settings, open_database(settings.database))
