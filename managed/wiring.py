"""Puts the parts together: the only place that picks drivers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine as Database

from images.rescue import RESCUE_COMMAND_LINE
from images.sources import resolve_sources
from managed.domain.addresses import host_and_port
from managed.domain.connections import KeyPair
from managed.domain.copies import KeepRule
from managed.domain.errors import InvalidInput, MissingRequirement
from managed.domain.jobs import CLOCKS_KEYS, Job, JobKind
from managed.domain.notifications import TargetKind, is_mail_address
from managed.domain.rescue import RescueSession
from managed.domain.secrets import Secret, SecretPurpose, new_password
from managed.domain.servers import Node
from managed.domain.snapshots import account_of
from managed.domain.windows import checked_zone
from managed.drivers.ansible.playbooks import AnsiblePlaybooks
from managed.drivers.children import LocalChildren
from managed.drivers.gateway import GatewaySettings, RcloneGateway, TlsListener
from managed.drivers.gateway_tls import RemoteGateway, gateway_address
from managed.drivers.helpdesks.zammad import ZammadHelpdesk
from managed.drivers.libvirt.driver import LibvirtHypervisor
from managed.drivers.libvirt.node import Acceleration, LibvirtNode
from managed.drivers.libvirt.registration import check_node
from managed.drivers.local_ports import FIRST, LAST, free_ports
from managed.drivers.notifications.email import EmailNotifier, MailSettings, Tls
from managed.drivers.notifications.webhooks import WebhookNotifier
from managed.drivers.restic.commands import ResticSettings
from managed.drivers.restic.repositories import ResticRepositories
from managed.drivers.runs import SshPolls, SshRuns
from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.drivers.ssh.keys import new_key_pair, public_key_of
from managed.drivers.ssh.shell import SshShell
from managed.drivers.ssh.transfers import SshTransfers
from managed.drivers.ssh.tunnels import SshTunnels
from managed.ports import Helpdesk, Hypervisor, Notifier
from managed.settings import Settings
from managed.storage.access import Access
from managed.storage.audit import AuditLog
from managed.storage.catalogue import Catalogue
from managed.storage.copies.control_plane import ControlPlaneCopies
from managed.storage.copies.state import SelfBackupRecord
from managed.storage.customers import Customers
from managed.storage.database import migrate, open_database, reading
from managed.storage.events import EventLog
from managed.storage.intake import Intake
from managed.storage.inventory import Inventory
from managed.storage.job_queue import JobQueue, NewJob
from managed.storage.leases import LeasedJobs
from managed.storage.notification_records import NotificationRecords
from managed.storage.notification_targets import NotificationTargets
from managed.storage.numbers import Numbers, read_numbers
from managed.storage.outbox import Outbox
from managed.storage.overview import Overview
from managed.storage.panel_access import PanelAccess
from managed.storage.replies import Replies
from managed.storage.requests import Requests
from managed.storage.schema import is_behind
from managed.storage.sessions import SessionRecords
from managed.storage.vault import (
    SealedVault,
    create_master_key,
    load_master_key,
    write_new_private_file,
)
from managed.storage.waiting import WaitingJobs
from managed.storage.windows import Windows
from managed.workflows.engine import Engine
from managed.workflows.registry import WORKFLOWS, current_workflow
from managed.workflows.world import Sources, World

_SHORTEST_SIGNING_SECRET = 16
_PROBE_SECONDS = 1.5
PLAYBOOKS = Path(__file__).parent.parent / "playbooks"


def utc_now() -> datetime:
    return datetime.now(UTC)


def seconds_since_boot() -> float:
    """With the time that this machine was suspended: others may have taken leases over in it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Installation:
    """One installation of managed, opened: its database, its drivers, its settings."""

    settings: Settings
    database: Database
    clock: Callable[[], datetime] = utc_now

    @cached_property
    def queue(self) -> JobQueue:
        return JobQueue(self.database)

    @cached_property
    def events(self) -> EventLog:
        return EventLog(self.database)

    @cached_property
    def inventory(self) -> Inventory:
        return Inventory(self.database)

    @cached_property
    def waiting(self) -> WaitingJobs:
        return WaitingJobs(self.database)

    @cached_property
    def sessions(self) -> SessionRecords:
        return SessionRecords(self.database)

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.database)

    @cached_property
    def customers(self) -> Customers:
        return Customers(self.database)

    @cached_property
    def access(self) -> Access:
        return Access(self.database)

    @cached_property
    def panel_access(self) -> PanelAccess:
        return PanelAccess(self.database)

    @cached_property
    def overview(self) -> Overview:
        return Overview(self.database)

    @cached_property
    def audit(self) -> AuditLog:
        return AuditLog(self.database)

    @cached_property
    def windows(self) -> Windows:
        return Windows(self.database)

    @cached_property
    def targets(self) -> NotificationTargets:
        return NotificationTargets(self.database)

    @cached_property
    def notifications(self) -> NotificationRecords:
        return NotificationRecords(self.database)

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(self.database)

    @cached_property
    def notifiers(self) -> Mapping[TargetKind, Notifier]:
        """The ways to tell people; mail only where a mail server is set."""
        webhooks = WebhookNotifier(
            lambda target_id: self.vault.secret(target_id, SecretPurpose.WEBHOOK_KEY),
            staff_may_be_private=self.settings.webhooks_to_private_addresses,
        )
        if not self.settings.smtp_host:
            return {TargetKind.WEBHOOK: webhooks}
        mail = EmailNotifier(mail_settings(self.settings))
        return {TargetKind.EMAIL: mail, TargetKind.WEBHOOK: webhooks}

    @cached_property
    def intake(self) -> Intake:
        return Intake(self.database)

    @cached_property
    def requests(self) -> Requests:
        return Requests(self.database)

    @cached_property
    def replies(self) -> Replies:
        return Replies(self.database)

    @cached_property
    def helpdesk(self) -> Helpdesk | None:
        """The helpdesk that answers go to; None where none is set up."""
        url = self.settings.zammad_url
        token = self.settings.zammad_token.get_secret_value()
        return ZammadHelpdesk(url, Secret(token)) if url and token else None

    @cached_property
    def webhook_secret(self) -> Secret | None:
        """What the helpdesk signs with; None where none is set up, and no webhook is taken."""
        secret = self.settings.zammad_webhook_secret.get_secret_value()
        if secret and len(secret) < _SHORTEST_SIGNING_SECRET:
            raise InvalidInput(
                "the secret of the webhook is too short",
                hint=f"Give MANAGED_ZAMMAD_WEBHOOK_SECRET at least {_SHORTEST_SIGNING_SECRET}"
                " random characters, and the same to Zammad.",
            )
        return Secret(secret) if secret else None

    @cached_property
    def tickets_zone(self) -> str:
        """The time zone of the times that tickets name; InvalidInput for none."""
        return checked_zone(self.settings.tickets_zone)

    @cached_property
    def vault(self) -> SealedVault:
        return SealedVault(self.database, load_master_key(self.settings.master_key), self.clock)

    @cached_property
    def shell(self) -> SshShell:
        return SshShell()

    @property
    def bucket_settings(self) -> S3Settings:
        return s3_settings(self.settings)

    @cached_property
    def bucket(self) -> S3ObjectStore:
        return S3ObjectStore(self.bucket_settings)

    @cached_property
    def copies(self) -> ControlPlaneCopies:
        """The control plane's own copies."""
        master_key = load_master_key(self.settings.master_key)
        return ControlPlaneCopies(self.database, self.bucket, master_key, self.clock)

    @cached_property
    def self_backup(self) -> SelfBackupRecord:
        return SelfBackupRecord(self.database)

    @property
    def keep_rule(self) -> KeepRule:
        """Which of the control plane's own copies stay."""
        settings = self.settings
        return KeepRule(
            timedelta(hours=settings.self_backup_keep_hours),
            settings.self_backup_keep_days,
            settings.self_backup_keep_weeks,
        )

    @cached_property
    def gateway(self) -> RcloneGateway | RemoteGateway:
        settings = self.settings
        if not settings.gateway_url:
            return RcloneGateway(settings.gateway_accounts, settings.gateway)
        address = gateway_address(settings.gateway_url, settings.gateway_ca_file)
        return RemoteGateway(settings.gateway_accounts, address, settings.runtime)

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

    def probes(self) -> Mapping[str, Callable[[], None]]:
        """What this installation cannot do its work without, each with a question that raises when
        there is no good answer.
        """
        return {
            "database": self._require_schema,
            "bucket": self._require_bucket,
            "gateway": self.gateway.require_answer,
        }

    def _require_bucket(self) -> None:
        """NotFound when the store answers and has no such bucket."""
        if not self.settings.s3_endpoint:
            raise MissingRequirement("no bucket is set", hint="MANAGED_S3_ENDPOINT is its server.")
        self._probed_bucket.keys("readiness/")

    @cached_property
    def _probed_bucket(self) -> S3ObjectStore:
        return S3ObjectStore(self.bucket_settings, timeout=_PROBE_SECONDS)

    def numbers(self, now: datetime) -> Numbers:
        return read_numbers(self.database, now)

    def _require_schema(self) -> None:
        with reading(self.database) as connection:
            behind = is_behind(connection)
        if behind:
            raise MissingRequirement(
                "the database has the schema of an older version", hint="Run: managed migrate"
            )

    def engine(
        self, owner: str, send: Callable[[str], None], stopping: Callable[[], bool]
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

    def new_key_pair(self) -> KeyPair:
        return new_key_pair()

    def admit_servers(self) -> int:
        """Let every server with a repository in at the gateway, whose file of accounts may be new;
        how many these are.
        """
        passwords = self.vault.secrets(SecretPurpose.GATEWAY_PASSWORD)
        self.gateway.admit_all({account_of(owner): one for owner, one in passwords.items()})
        return len(passwords)

    def check_node(self, node: Node) -> None:
        """InvalidInput or HypervisorUnavailable when no server could be made on this node."""
        check_node(node.libvirt_uri, node.storage_dir)

    def host_ports(self, node: Node) -> Iterator[int]:
        """Ports of the node's loopback for new servers, lowest first. Those in use are left out
        where the node is this machine; elsewhere that cannot be seen from here, and QEMU says so
        when it starts.
        """
        if urlsplit(node.libvirt_uri).hostname is None:
            return free_ports()
        return iter(range(FIRST, LAST + 1))

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


@lru_cache(maxsize=8)
def apt_sources_text(settings: Settings, operating_system: str) -> str:
    """/etc/apt/sources.list of a new server: the release with its updates and security updates."""
    found = resolve_sources(
        settings.debian_mirror, settings.debian_security_mirror, None, lambda _: None
    )
    suite = {"debian-12": "bookworm", "debian-13": "trixie"}[operating_system]
    return (
        f"deb {found.mirror} {suite} main\n"
        f"deb {found.mirror} {suite}-updates main\n"
        f"deb {found.security_mirror} {suite}-security main\n"
    )


def mail_settings(settings: Settings) -> MailSettings:
    """MissingRequirement when they are not complete, or would show the password to the network."""
    if not is_mail_address(settings.smtp_from):
        raise MissingRequirement(
            "MANAGED_SMTP_HOST is set, but MANAGED_SMTP_FROM is not one plain mail address",
            hint="It is the one that mails come from, such as managed@example.org.",
        )
    if settings.smtp_user and settings.smtp_tls == "none":
        raise MissingRequirement(
            "with MANAGED_SMTP_TLS=none the password would cross the network readable",
            hint="Set it to starttls or tls, or leave MANAGED_SMTP_USER out.",
        )
    return MailSettings(
        host=settings.smtp_host,
        port=settings.smtp_port,
        sender=settings.smtp_from,
        tls=Tls(settings.smtp_tls),
        user=settings.smtp_user,
        password=Secret(settings.smtp_password.get_secret_value()),
        ca_file=settings.smtp_ca_file,
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


def gateway_to_run(settings: Settings) -> GatewaySettings:
    """The gateway that these settings describe; InvalidInput when it lacks its certificate."""
    tls = None
    if settings.gateway_listen:
        certificate, key = settings.gateway_certificate_file, settings.gateway_key_file
        if certificate is None or key is None:
            raise InvalidInput(
                "a gateway that listens with TLS needs a certificate",
                hint="Set MANAGED_GATEWAY_CERTIFICATE_FILE and MANAGED_GATEWAY_KEY_FILE.",
            )
        host_and_port(settings.gateway_listen, "MANAGED_GATEWAY_LISTEN")
        tls = TlsListener(settings.gateway_listen, certificate, key)
    return GatewaySettings(
        store=s3_settings(settings),
        socket=settings.gateway,
        accounts_file=settings.gateway_accounts,
        log_file=settings.state / "log" / "gateway.log",
        tls=tls,
    )


def s3_settings(settings: Settings) -> S3Settings:
    return S3Settings(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=Secret(settings.s3_access_key),
        secret_key=Secret(settings.s3_secret_key.get_secret_value()),
    )


def create_api_token(path: Path) -> None:
    """Write a new bearer token, readable by us only; an existing one is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new_private_file(path, new_password().reveal().encode() + b"\n")


def open_installation(settings: Settings) -> Installation:
    """Open the installation that these settings describe; it has been prepared."""
    settings.runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Installation(settings, open_database(settings.database))
