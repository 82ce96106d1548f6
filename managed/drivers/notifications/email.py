"""Mail by SMTP: implements `managed.ports.Notifier`."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from managed.domain.errors import NotDelivered
from managed.domain.notice_texts import Message
from managed.domain.notifications import Target
from managed.domain.secrets import Secret

_TIMEOUT_SECONDS: Final = 8.0
"""For each answer of the server; a whole delivery needs about a dozen of them."""


class Tls(StrEnum):
    """How the connection to the mail server is kept private."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True)
class MailSettings:
    """Without `user` nobody logs in. The server's certificate is checked against `ca_file`, or else
    against what this machine trusts.
    """

    host: str
    port: int
    sender: str
    tls: Tls
    user: str = ""
    password: Secret | None = None
    ca_file: Path | None = None


class EmailNotifier:
    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    def deliver(self, target: Target, message: Message, delivery_id: str, now: datetime) -> None:
        mail = mail_of(self._settings.sender, target.address, message, delivery_id, now)
        with _translated(self._settings), self._connected() as server:
            server.send_message(mail, self._settings.sender, [target.address])

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """A session with the server, logged in. Once it has taken a mail, how the session ends does
        not matter.
        """
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.ca_file)
        server: smtplib.SMTP
        if settings.tls is Tls.TLS:
            server = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=_TIMEOUT_SECONDS, context=context
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=_TIMEOUT_SECONDS)
        try:
            if settings.tls is Tls.STARTTLS:
                server.starttls(context=context)
            if settings.user and settings.password is not None:
                server.login(settings.user, settings.password.reveal())
            yield server
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
        finally:
            server.close()


def mail_of(
    sender: str, recipient: str, message: Message, delivery_id: str, now: datetime
) -> EmailMessage:
    """The mail, with the same Message-ID at every try; no machine answers it."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{delivery_id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return mail


@contextmanager
def _translated(settings: MailSettings) -> Iterator[None]:
    """What went wrong in words that hold nothing of the login."""
    where = f"the mail server {settings.host}:{settings.port}"
    try:
        yield
    except smtplib.SMTPAuthenticationError as error:
        raise NotDelivered(
            f"{where} refused the login (SMTP {error.smtp_code})",
            hint="Are MANAGED_SMTP_USER and MANAGED_SMTP_PASSWORD right?",
        ) from error
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise NotDelivered(f"{where} refused the recipient: {_words(code, said)}") from error
    except smtplib.SMTPResponseException as error:
        answer = _words(error.smtp_code, error.smtp_error)
        raise NotDelivered(f"{where} answered {answer}") from error
    except ssl.SSLError as error:
        raise NotDelivered(
            f"{where} has no certificate that can be trusted: {error.reason or error}",
            hint="MANAGED_SMTP_CA_FILE may name the authority of a private one.",
        ) from error
    except (smtplib.SMTPException, OSError) as error:
        raise NotDelivered(
            f"{where} cannot be used: {error}", hint="Are MANAGED_SMTP_HOST, PORT and TLS right?"
        ) from error


def _words(code: int, said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return f"{code} {' '.join(text.split())[:200]}"
