"""Which settings of the mail server are refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from managed.domain.errors import MissingRequirement
from managed.domain.notifications import TargetKind
from managed.drivers.notifications.email import Tls
from managed.settings import Settings
from managed.storage.database import open_database
from managed.wiring import Installation, mail_settings

MAIL = {"smtp_host": "mail.example.org", "smtp_from": "managed@example.org"}


def test_mail_is_there_where_a_mail_server_is_set(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/managed.db")
    assert set(Installation(Settings(**MAIL), database).notifiers) == set(TargetKind)
    assert set(Installation(Settings(), database).notifiers) == {TargetKind.WEBHOOK}


def test_mail_goes_by_starttls_unless_told_otherwise() -> None:
    assert mail_settings(Settings(**MAIL)).tls is Tls.STARTTLS


def test_a_mail_server_without_a_sender_is_refused() -> None:
    for sender in ("", "managed", "managed@example.org\n"):
        with pytest.raises(MissingRequirement, match="MANAGED_SMTP_FROM"):
            mail_settings(Settings(smtp_host="mail.example.org", smtp_from=sender))


def test_a_password_never_crosses_the_network_in_the_clear() -> None:
    with pytest.raises(MissingRequirement, match="readable"):
        mail_settings(Settings(**MAIL, smtp_tls="none", smtp_user="managed"))
