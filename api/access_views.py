"""Answers about users, tokens and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from api import examples
from api.views import View, shown_as
from managed.domain.access import Permission, Principal, Role, User
from managed.domain.audit import AuditEntry
from managed.domain.secrets import Secret
from managed.domain.tokens import ApiToken


class UserView(View):
    model_config = shown_as(examples.USER)
    id: str
    email: str
    name: str
    role: Role
    customer_id: str | None
    created_at: datetime
    disabled_at: datetime | None

    @classmethod
    def of(cls, user: User) -> UserView:
        return cls(
            id=user.user_id,
            email=user.email,
            name=user.name,
            role=user.role,
            customer_id=user.customer_id,
            created_at=user.created_at,
            disabled_at=user.disabled_at,
        )


class CallerView(View):
    """Who calls, and what they may with this token."""

    model_config = shown_as(examples.CALLER)
    name: str
    role: Role
    customer_id: str | None
    permissions: list[Permission]

    @classmethod
    def of(cls, principal: Principal, name: str) -> CallerView:
        return cls(
            name=name,
            role=principal.role,
            customer_id=principal.customer_id,
            permissions=sorted(principal.permissions),
        )


class TokenView(View):
    """`scopes` is null where the token permits all that its user's role does."""

    model_config = shown_as(examples.TOKEN)
    id: str
    user_id: str
    name: str
    scopes: list[Permission] | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, token: ApiToken) -> TokenView:
        return cls(
            id=token.token_id,
            user_id=token.user_id,
            name=token.name,
            scopes=None if token.scopes is None else sorted(token.scopes),
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
            revoked_at=token.revoked_at,
        )


class NewTokenView(TokenView):
    """With the token itself, which is shown this once and not kept."""

    model_config = shown_as(examples.NEW_TOKEN)
    token: str

    @classmethod
    def shown_once(cls, token: ApiToken, text: Secret) -> NewTokenView:
        return cls(**TokenView.of(token).model_dump(), token=text.reveal())


class AuditEntryView(View):
    """`hash` is the SHA-256 over the entry and `previous_hash` (docs/guides/access.md says how)."""

    model_config = shown_as(examples.AUDIT_ENTRY)
    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    data: dict[str, Any]
    previous_hash: str
    hash: str

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditEntryView:
        deed = entry.deed
        return cls(
            number=entry.number,
            at=deed.at,
            actor=deed.actor,
            action=deed.action,
            subject=deed.subject,
            reason=deed.reason,
            data=dict(deed.data),
            previous_hash=entry.previous_hash,
            hash=entry.hash,
        )


class AuditHeadView(View):
    """The last entry. Keep a copy elsewhere: whoever changes the log later cannot change that."""

    model_config = shown_as(examples.AUDIT_HEAD)
    number: int
    hash: str
