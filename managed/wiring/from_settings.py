"""What drivers are told of the settings."""

from __future__ import annotations

from functools import lru_cache

from images.sources import resolve_sources
from managed.domain.addresses import host_and_port
from managed.domain.errors import InvalidInput, MissingRequirement
from managed.domain.notifications import is_mail_address
from managed.domain.secrets import Secret
from managed.drivers.gateway import GatewaySettings, TlsListener
from managed.drivers.notifications.email import MailSettings, Tls
from managed.drivers.s3 import S3Settings
from managed.settings import Settings


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


def s3_settings(settings: Settings) -> S3Settings:
    return S3Settings(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=Secret(settings.s3_access_key),
        secret_key=Secret(settings.s3_secret_key.get_secret_value()),
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
