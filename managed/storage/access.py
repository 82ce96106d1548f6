"""Users and their API tokens. Of a token only its hash is kept."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, delete, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from managed.domain.access import Permission, Role, User
from managed.domain.errors import AlreadyExists, Conflict, NotFound
from managed.domain.secrets import Secret
from managed.domain.tokens import ApiToken, token_hash, token_id_of
from managed.storage.database import reading, writing
from managed.storage.tables import api_tokens, invitations, panel_sessions, users

# How exactly it is known when a token was used last: a write for every request would cost more
# than the request.
_USE_IS_NOTED_EVERY: Final = timedelta(minutes=10)


class Access:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- users

    def add_user(self, connection: Connection, user: User) -> None:
        """Insert inside the caller's transaction; AlreadyExists when the address is taken."""
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(users).values(
                        id=user.user_id,
                        email=user.email,
                        name=user.name,
                        role=user.role.value,
                        customer_id=user.customer_id,
                        created_at=user.created_at,
                    )
                )
        except IntegrityError as error:
            raise AlreadyExists(
                f"a user with the address {user.email} exists", field="email"
            ) from error

    def user(self, reference: str) -> User:
        """The user of this id or e-mail address; NotFound."""
        query = select(users).where(
            or_(users.c.id == reference, users.c.email == reference.lower())
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"there is no user {reference!r}", hint="GET /v1/users lists them.")
        return user_from_row(row)

    def users(
        self, *, role: Role | None = None, after_email: str = "", limit: int = 50
    ) -> Sequence[User]:
        """By e-mail address, those after `after_email`; with a role those who have it."""
        query = (
            select(users).where(users.c.email > after_email).order_by(users.c.email).limit(limit)
        )
        if role is not None:
            query = query.where(users.c.role == role.value)
        with reading(self._engine) as connection:
            return [user_from_row(row) for row in connection.execute(query)]

    def set_disabled(
        self, connection: Connection, user: User, disabled_at: datetime | None
    ) -> None:
        """With a time none of the user's tokens opens anything any more; None undoes that. Sessions
        of the panel and invitations end for good.
        """
        connection.execute(
            update(users).where(users.c.id == user.user_id).values(disabled_at=disabled_at)
        )
        for table in (panel_sessions, invitations):
            connection.execute(delete(table).where(table.c.user_id == user.user_id))

    # -- tokens

    def add_token(self, connection: Connection, token: ApiToken, text: Secret) -> None:
        """Insert inside the caller's transaction."""
        scopes = None if token.scopes is None else sorted(token.scopes)
        connection.execute(
            insert(api_tokens).values(
                id=token.token_id,
                user_id=token.user_id,
                name=token.name,
                hash=token_hash(text.reveal()),
                scopes=scopes,
                created_at=token.created_at,
                expires_at=token.expires_at,
            )
        )

    def token(self, token_id: str) -> ApiToken:
        with reading(self._engine) as connection:
            row = connection.execute(
                select(api_tokens).where(api_tokens.c.id == token_id)
            ).one_or_none()
        if row is None:
            raise NotFound(f"there is no token {token_id!r}", hint="GET /v1/tokens lists them.")
        return _token(row)

    def tokens_of(
        self, user_id: str, *, before: ApiToken | None = None, limit: int = 50
    ) -> Sequence[ApiToken]:
        """The user's tokens, newest first, ended ones too; `before` is the last one of the page
        before.
        """
        key = (api_tokens.c.created_at, api_tokens.c.id)
        query = (
            select(api_tokens)
            .where(api_tokens.c.user_id == user_id)
            .order_by(*(column.desc() for column in key))
            .limit(limit)
        )
        if before is not None:
            query = query.where(tuple_(*key) < (before.created_at, before.token_id))
        with reading(self._engine) as connection:
            return [_token(row) for row in connection.execute(query)]

    def revoke(self, connection: Connection, token: ApiToken, now: datetime) -> None:
        """From the commit on it opens nothing. Conflict when it was revoked before."""
        changed = connection.execute(
            update(api_tokens)
            .where(api_tokens.c.id == token.token_id, api_tokens.c.revoked_at.is_(None))
            .values(revoked_at=now)
        ).rowcount
        if changed == 0:
            raise Conflict(f"the token {token.token_id} was revoked before")

    def opened_by(self, text: str, now: datetime) -> tuple[User, ApiToken] | None:
        """Whose token this is, if it is one at all; whether it still counts is theirs to say."""
        token_id = token_id_of(text)
        if token_id is None:
            return None
        with reading(self._engine) as connection:
            row = connection.execute(
                select(api_tokens).where(api_tokens.c.id == token_id)
            ).one_or_none()
            if row is None or not hmac.compare_digest(row.hash, token_hash(text)):
                return None
            owner = connection.execute(select(users).where(users.c.id == row.user_id)).one()
        token = _token(row)
        self._note_use(token, now)
        return user_from_row(owner), token

    def _note_use(self, token: ApiToken, now: datetime) -> None:
        if token.last_used_at is None or token.last_used_at <= now - _USE_IS_NOTED_EVERY:
            with writing(self._engine) as connection:
                connection.execute(
                    update(api_tokens)
                    .where(api_tokens.c.id == token.token_id)
                    .values(last_used_at=now)
                )


def user_from_row(row: Row[Any]) -> User:
    return User(
        user_id=row.id,
        email=row.email,
        name=row.name,
        role=Role(row.role),
        customer_id=row.customer_id,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
    )


def _token(row: Row[Any]) -> ApiToken:
    return ApiToken(
        token_id=row.id,
        user_id=row.user_id,
        name=row.name,
        created_at=row.created_at,
        expires_at=row.expires_at,
        scopes=None if row.scopes is None else frozenset(map(Permission, row.scopes)),
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
