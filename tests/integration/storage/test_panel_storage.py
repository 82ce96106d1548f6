"""What the panel keeps and asks for, on both databases."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine as Database

from managed.domain.errors import Conflict
from managed.domain.jobs import JobKind, JobStatus
from managed.domain.servers import Server, ServerOrigin, ServerStatus
from managed.domain.sign_in import SESSION_IDLE, SESSION_LIFE, new_link_token
from managed.settings import Settings
from managed.storage.database import writing
from managed.storage.panel_access import PanelAccess
from managed.wiring import Installation, utc_now
from tests.integration.storage.test_access import KIM
from tests.support.jobs import START
from tests.support.nights import failed_job, patched, work_on


@pytest.fixture
def installation(database: Database, tmp_path: Path) -> Installation:
    return Installation(Settings(state_dir=tmp_path), database)


def add_server(installation: Installation, name: str) -> Server:
    server = Server(
        server_id=str(uuid.uuid4()),
        name=name,
        origin=ServerOrigin.ENROLLED,
        status=ServerStatus.ACTIVE,
        address=f"{name}.example.org",
        ssh_port=22,
        ssh_user="root",
        host_key="ssh-ed25519 AAAA",
        operating_system="debian-12",
    )
    with writing(installation.database) as connection:
        installation.inventory.add(connection, server, utc_now())
    return server


def test_the_night_is_put_together_over_all_servers(installation: Installation) -> None:
    began = utc_now()
    overview = installation.overview
    shop, mail = add_server(installation, "shop"), add_server(installation, "mail")
    done = patched(installation, shop)
    failed = failed_job(installation, mail, "the disk is full")
    waiting = installation.queue.submit(
        installation.new_job(mail.server_id, JobKind.CHECK, {}, "a test"), utc_now()
    )
    running = work_on(installation, shop, JobKind.BACKUP)
    running.begin("take_snapshot")
    for percent in (10, 20):
        running.say("backup_progress", percent=percent)
    running.say("playbook_output", text="a line")
    (one,) = overview.failed(began)
    assert (one.job.job_id, one.server_name, one.step) == (failed.job_id, "mail", "take_snapshot")
    assert overview.failed(utc_now() + timedelta(hours=1)) == []
    first, second = overview.under_way()
    assert [first.job.job_id, second.job.job_id] == [running.job.job_id, waiting.job_id]
    assert (first.step, second.job.status) == ("take_snapshot", JobStatus.QUEUED)
    assert first.progress is not None
    assert first.progress.data == {"percent": 20}
    assert second.progress is None
    assert overview.succeeded(began) == {JobKind.PATCH: 1}
    assert overview.last_patch(shop.server_id) == done.job_id
    assert overview.last_patch(mail.server_id) is None
    # What an earlier step told says nothing of the present one.
    running.begin("verify")
    assert overview.under_way()[0].progress is None


def test_a_session_opens_until_it_ends_and_is_kept_as_a_hash(
    installation: Installation, database: Database
) -> None:
    panel, cookie = PanelAccess(database), new_link_token()
    with writing(database) as connection:
        installation.access.add_user(connection, KIM)
        session = panel.open_session(connection, KIM, cookie, START)
    text, later = cookie.reveal(), START + SESSION_IDLE / 2
    assert panel.opened_by(text, later, is_use=False) == (KIM, session)
    assert panel.opened_by(text[:-1], later, is_use=True) is None
    assert panel.opened_by("", later, is_use=True) is None
    assert panel.opened_by(text, START + SESSION_IDLE, is_use=True) is None
    assert panel.opened_by(text, later, is_use=True) is not None
    assert panel.opened_by(text, START + SESSION_IDLE, is_use=True) is not None
    assert panel.opened_by(text, START + SESSION_LIFE, is_use=True) is None
    with writing(database) as connection:
        kept = connection.exec_driver_sql("SELECT id FROM panel_sessions").scalar()
        panel.end_session(connection, text)
    assert kept != text
    assert panel.opened_by(text, later, is_use=True) is None


def test_an_invitation_is_used_once_and_a_newer_one_takes_its_place(
    installation: Installation, database: Database
) -> None:
    panel, old, new = PanelAccess(database), new_link_token(), new_link_token()
    with writing(database) as connection:
        installation.access.add_user(connection, KIM)
        panel.invite(connection, KIM, old, START)
        invitation = panel.invite(connection, KIM, new, START)
    assert panel.invited_by(old.reveal()) is None
    assert panel.invited_by(new.reveal()) == (KIM, invitation)
    with writing(database) as connection:
        panel.set_password(connection, invitation, "a hash", START)
    with pytest.raises(Conflict), writing(database) as connection:
        panel.set_password(connection, invitation, "another hash", START)
    credentials = panel.credentials("KIM@example.org")
    assert credentials is not None
    assert credentials.password_hash == "a hash"
