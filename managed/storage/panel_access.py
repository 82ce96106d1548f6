"""Passwords, sessions and invitations of the panel. Of cookies and links only hashes are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from managed.domain.access import User
from managed.domain.errors import Conflict
from managed.domain.secrets import Secret
from managed.domain.sign_in import INVITATION_LIFE, Invitation, PanelSession, new_csrf
from managed.domain.tokens import token_hash
from managed.storage.access import user_from_row
from managed.storage.database import reading, writing
from managed.storage.tables import invitations, panel_sessions, users

# Every page of a panel that is left open asks: a write each time would cost more than the page.
_USE_IS_NOTED_EVERY: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Credentials:
    """`password_hash` is None for a user who has set no password."""

    user: User
    password_hash: str | None


class PanelAccess:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- passwords

    def credentials(self, email: str) -> Credentials | None:
        """What the user of this address signs in with; None when there is no such user."""
        query = select(users).where(users.c.email == email.lower())
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return Credentials(user_from_row(row), row.password_hash) if row else None

    def set_password(
        self, connection: Connection, invitation: Invitation, password_hash: str, now: datetime
    ) -> None:
        """Use the invitation up; all sessions of its user end. Conflict when it was used before."""
        used = connection.execute(
            update(invitations)
            .where(invitations.c.id == invitation.invitation_id, invitations.c.used_at.is_(None))
            .values(used_at=now)
        ).rowcount
        if used == 0:
            raise Conflict("this link was used before")
        connection.execute(
            update(users)
            .where(users.c.id == invitation.user_id)
            .values(password_hash=password_hash)
        )
        connection.execute(
            delete(panel_sessions).where(panel_sessions.c.user_id == invitation.user_id)
        )

    def replace_hash(self, user: User, before: str, password_hash: str) -> None:
        """The same password by stronger parameters; not when another was set meanwhile."""
        with writing(self._engine) as connection:
            connection.execute(
                update(users)
                .where(users.c.id == user.user_id, users.c.password_hash == before)
                .values(password_hash=password_hash)
            )

    # -- invitations

    def invite(self, connection: Connection, user: User, text: Secret, now: datetime) -> Invitation:
        """Insert inside the caller's transaction; earlier ones of this user count no more."""
        connection.execute(delete(invitations).where(invitations.c.user_id == user.user_id))
        made = Invitation(token_hash(text.reveal()), user.user_id, now, now + INVITATION_LIFE)
        connection.execute(
            insert(invitations).values(
                id=made.invitation_id,
                user_id=made.user_id,
                created_at=made.created_at,
                expires_at=made.expires_at,
            )
        )
        return made

    def invited_by(self, text: str) -> tuple[User, Invitation] | None:
        """Whom this link invites; whether it still counts is the invitation's to say."""
        query = select(invitations).where(invitations.c.id == token_hash(text))
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            user = connection.execute(select(users).where(users.c.id == row.user_id)).one()
        invitation = Invitation(row.id, row.user_id, row.created_at, row.expires_at, row.used_at)
        return user_from_row(user), invitation

    # -- sessions

    def open_session(
        self, connection: Connection, user: User, cookie: Secret, now: datetime
    ) -> PanelSession:
        """Insert inside the caller's transaction; sessions past their time are forgotten."""
        connection.execute(delete(panel_sessions).where(panel_sessions.c.expires_at <= now))
        made = PanelSession(token_hash(cookie.reveal()), user.user_id, new_csrf(), now, now)
        connection.execute(
            insert(panel_sessions).values(
                id=made.session_id,
                user_id=made.user_id,
                csrf=made.csrf,
                created_at=now,
                expires_at=made.expires_at,
                last_seen_at=now,
            )
        )
        return made

    def opened_by(
        self, cookie: str, now: datetime, *, is_use: bool
    ) -> tuple[User, PanelSession] | None:
        """Whose session this cookie is of, if it opens one now. What pages ask by themselves is no
        use of it: else a panel that was left open would stay so.
        """
        query = select(panel_sessions).where(panel_sessions.c.id == token_hash(cookie))
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            owner = connection.execute(select(users).where(users.c.id == row.user_id)).one()
        user, session = user_from_row(owner), _session(row)
        if session.limitation(user, now) is not None:
            return None
        if is_use:
            self._note_use(session, now)
        return user, session

    def end_session(self, connection: Connection, cookie: str) -> None:
        """From the commit on the cookie opens nothing; one that opened nothing is fine."""
        connection.execute(delete(panel_sessions).where(panel_sessions.c.id == token_hash(cookie)))

    def _note_use(self, session: PanelSession, now: datetime) -> None:
        if session.last_seen_at <= now - _USE_IS_NOTED_EVERY:
            with writing(self._engine) as connection:
                connection.execute(
                    update(panel_sessions)
                    .where(panel_sessions.c.id == session.session_id)
                    .values(last_seen_at=now)
                )


def _session(row: Row[Any]) -> PanelSession:
    return PanelSession(row.id, row.user_id, row.csrf, row.created_at, row.last_seen_at)
