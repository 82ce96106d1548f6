"""How an installation reaches the world around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from urllib.parse import urlsplit

from managed.domain.connections import KeyPair
from managed.domain.copies import KeepRule
from managed.domain.errors import InvalidInput
from managed.domain.notifications import TargetKind
from managed.domain.secrets import Secret, SecretPurpose
from managed.domain.servers import Node
from managed.domain.snapshots import account_of
from managed.domain.windows import checked_zone
from managed.drivers.gateway import RcloneGateway
from managed.drivers.gateway_tls import RemoteGateway, gateway_address
from managed.drivers.helpdesks.zammad import ZammadHelpdesk
from managed.drivers.libvirt.registration import check_node
from managed.drivers.local_ports import FIRST, LAST, free_ports
from managed.drivers.notifications.email import EmailNotifier
from managed.drivers.notifications.webhooks import WebhookNotifier
from managed.drivers.s3 import S3ObjectStore, S3Settings
from managed.drivers.ssh.keys import new_key_pair
from managed.drivers.ssh.shell import SshShell
from managed.ports import Helpdesk, Notifier
from managed.storage.copies.control_plane import ControlPlaneCopies
from managed.storage.vault import (
    load_master_key,
)
from managed.wiring.from_settings import (
    mail_settings,
    s3_settings,
)
from managed.wiring.records import Records

_SHORTEST_SIGNING_SECRET = 16
_PROBE_SECONDS = 1.5


class Outside(Records):
    """The drivers that the settings name."""

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

    def probes(self) -> Mapping[str, Callable[[], None]]:
        """What this installation cannot do its work without, each with a question that raises when
        there is no good answer.
        """
        return {
            "database": self.require_schema,
            "bucket": self._require_bucket,
            "gateway": self.gateway.require_answer,
        }

    def _require_bucket(self) -> None:
        """NotFound when the store answers and has no such bucket."""
        self._probed_bucket.keys("readiness/")

    @cached_property
    def _probed_bucket(self) -> S3ObjectStore:
        return S3ObjectStore(self.bucket_settings, timeout=_PROBE_SECONDS)

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
