"""A real SMTP server (aiosmtpd) on loopback that keeps what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from managed.domain.secrets import Secret
from managed.drivers.notifications.email import MailSettings, Tls
from managed.lab.ports import free_port
from tests.support.certificates import OwnCertificate

USER, PASSWORD = "managed", "a-mail-password"


class Mailbox:
    """Takes every mail, or, while `answer` says otherwise, none."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            parsed = message_from_bytes(cast(bytes, envelope.content), policy=policy.default)
            self.mails.append(cast(EmailMessage, parsed))
            self.recipients.append(list(envelope.rcpt_tos))
        return self.answer


@contextmanager
def mail_server(
    mailbox: Mailbox, tls: Tls = Tls.NONE, certificate: OwnCertificate | None = None
) -> Iterator[MailSettings]:
    """Serving on loopback; with a certificate by TLS, and then for those who log in only. Yields
    the settings that reach it.
    """
    options: dict[str, Any] = {}
    if certificate is not None:
        options = {"auth_required": True, "authenticator": _authenticate}
        if tls is Tls.STARTTLS:
            options |= {"tls_context": certificate.context(), "require_starttls": True}
        else:
            # To aiosmtpd a connection that was TLS from its first byte on does not look like TLS.
            options |= {"ssl_context": certificate.context(), "auth_require_tls": False}
    server = Controller(mailbox, hostname="127.0.0.1", port=free_port(), **options)
    server.start()
    try:
        yield MailSettings(
            host="localhost" if certificate else "127.0.0.1",
            port=server.port,
            sender="managed@example.org",
            tls=tls,
            user=USER if certificate else "",
            password=Secret(PASSWORD),
            ca_file=certificate.file if certificate else None,
        )
    finally:
        server.stop()


def _authenticate(*asked: Any) -> AuthResult:
    given = asked[-1]
    is_right = isinstance(given, LoginPassword) and (given.login, given.password) == (
        USER.encode(),
        PASSWORD.encode(),
    )
    return AuthResult(success=is_right, handled=False)
