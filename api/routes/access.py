"""Users, their API tokens, and the audit log."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints
from sqlalchemy import Connection

from api.access_requests import NewToken, NewUser
from api.access_views import (
    AuditEntryView,
    AuditHeadView,
    CallerView,
    NewTokenView,
    TokenView,
    UserView,
)
from api.auth import OPERATOR, Caller, CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.idempotency import Answer, IdempotencyKey, once
from api.moments import Moment
from api.routes._common import Limit, Reference, cut, problems
from api.routes.customers import customer_of
from api.views import Page
from managed.domain.access import Permission, Role, User
from managed.domain.errors import InvalidInput, NotFound
from managed.domain.secrets import Secret
from managed.domain.tokens import ApiToken, granted_scopes, new_token

router = APIRouter(prefix="/v1", tags=["access"], route_class=GuardedRoute)

_EXPORT_LIMIT = 1000
_LARGEST_NUMBER = 2**53

UserReference = Annotated[
    str,
    StringConstraints(min_length=1, max_length=254),
    Path(description="The user's id or e-mail address.", examples=["kim@example.org"]),
]
TokenId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{12}$"),
    Path(description="The readable part of the token.", examples=["0a1b2c3d4e5f"]),
]
TokenCursor = Annotated[
    str | None, Query(pattern=r"^[0-9a-f]{12}$", description="`next` of the page before.")
]
EmailCursor = Annotated[str | None, Query(max_length=254, description="`next` of the page before.")]


@router.get("/me", responses=problems(), dependencies=[permits(None)])
def read_caller(caller: CallerDependency) -> CallerView:
    """Who calls, and what they may with this token."""
    return CallerView.of(caller.principal, caller.name)


@router.post(
    "/users",
    status_code=201,
    response_model=UserView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.USERS)],
)
def add_user(
    body: NewUser,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Add a user. They can do nothing before they have a token (`POST /v1/tokens`)."""

    def add(connection: Connection, user: User) -> Answer:
        services.access.add_user(connection, user)
        return Answer(
            201,
            UserView.of(user),
            f"/v1/users/{user.user_id}",
            subject=user.user_id,
            facts={"email": user.email, "role": user.role.value, "customer_id": user.customer_id},
        )

    caller.principal.require_role(body.role)
    return once(services, caller, idempotency_key, request, body).answer(
        lambda: _new_user(services, body), add
    )


@router.get("/users", responses=problems(), dependencies=[permits(Permission.USERS)])
def list_users(
    services: ServicesDependency,
    role: Role | None = None,
    limit: Limit = 50,
    cursor: EmailCursor = None,
) -> Page[UserView]:
    """Users, by e-mail address."""
    found = services.access.users(role=role, after_email=cursor or "", limit=limit + 1)
    page, last = cut(found, limit)
    return Page[UserView](
        items=[UserView.of(user) for user in page], next=last.email if last else None
    )


@router.get("/users/{user}", responses=problems(404), dependencies=[permits(Permission.USERS)])
def read_user(user: UserReference, services: ServicesDependency) -> UserView:
    """One user, by id or e-mail address."""
    return UserView.of(services.access.user(user))


@router.post(
    "/users/{user}/disable",
    response_model=UserView,
    responses=problems(404),
    dependencies=[permits(Permission.USERS)],
)
def disable_user(
    user: UserReference, request: Request, services: ServicesDependency, caller: CallerDependency
) -> JSONResponse:
    """From now on none of the user's tokens opens anything."""
    return _set_disabled(services, caller, request, user, disabled=True)


@router.post(
    "/users/{user}/enable",
    response_model=UserView,
    responses=problems(404),
    dependencies=[permits(Permission.USERS)],
)
def enable_user(
    user: UserReference, request: Request, services: ServicesDependency, caller: CallerDependency
) -> JSONResponse:
    """The user's tokens open what they did before, as far as they have not ended."""
    return _set_disabled(services, caller, request, user, disabled=False)


@router.post(
    "/tokens",
    status_code=201,
    response_model=NewTokenView,
    responses=problems(404, 413),
    dependencies=[permits(Permission.TOKENS)],
)
def make_token(
    body: NewToken, request: Request, services: ServicesDependency, caller: CallerDependency
) -> JSONResponse:
    """Make a token. The answer shows it this once; only its hash is kept, and so no
    `Idempotency-Key` is taken here.
    """

    def prepare() -> tuple[ApiToken, Secret]:
        owner = _owner(services, caller, body.user)
        token_id, text = new_token()
        now = services.clock()
        token = ApiToken(
            token_id=token_id,
            user_id=owner.user_id,
            name=body.name,
            created_at=now,
            expires_at=_end_of_token(services, caller, now + timedelta(days=body.days)),
            scopes=granted_scopes(caller.principal, owner, body.scopes),
        )
        return token, text

    def make(connection: Connection, prepared: tuple[ApiToken, Secret]) -> Answer:
        token, text = prepared
        services.access.add_token(connection, token, text)
        return Answer(
            201,
            NewTokenView.shown_once(token, text),
            f"/v1/tokens/{token.token_id}",
            subject=token.user_id,
            facts={"made": token.token_id, "name": token.name},
        )

    return once(services, caller, None, request, body).answer(prepare, make)


@router.get("/tokens", responses=problems(404), dependencies=[permits(Permission.TOKENS)])
def list_tokens(
    services: ServicesDependency,
    caller: CallerDependency,
    user: Annotated[
        str | None, Query(max_length=254, description="Whose, by id or e-mail address; one's own.")
    ] = None,
    limit: Limit = 50,
    cursor: TokenCursor = None,
) -> Page[TokenView]:
    """A user's tokens, newest first, ended ones too; never the tokens themselves."""
    owner = _owner(services, caller, user)
    before = services.access.token(cursor) if cursor else None
    if before is not None and before.user_id != owner.user_id:
        raise InvalidInput("the cursor is none of this user's tokens", field="cursor")
    found = services.access.tokens_of(owner.user_id, before=before, limit=limit + 1)
    page, last = cut(found, limit)
    return Page[TokenView](
        items=[TokenView.of(token) for token in page], next=last.token_id if last else None
    )


@router.delete(
    "/tokens/{token_id}",
    response_model=TokenView,
    responses=problems(404, 409),
    dependencies=[permits(Permission.TOKENS)],
)
def revoke_token(
    token_id: TokenId, request: Request, services: ServicesDependency, caller: CallerDependency
) -> JSONResponse:
    """End a token at once: one's own, or, by an admin, anybody's."""

    def prepare() -> ApiToken:
        token = services.access.token(token_id)
        own = token.user_id == caller.principal.user_id
        if not own and Permission.USERS not in caller.principal.permissions:
            raise NotFound(f"there is no token {token_id!r}", hint="GET /v1/tokens lists them.")
        return token

    def revoke(connection: Connection, token: ApiToken) -> Answer:
        now = services.clock()
        services.access.revoke(connection, token, now)
        return Answer(
            200,
            TokenView.of(replace(token, revoked_at=now)),
            subject=token.user_id,
            facts={"revoked": token.token_id, "name": token.name},
        )

    return once(services, caller, None, request, None).answer(prepare, revoke)


@router.get("/audit", responses=problems(), dependencies=[permits(Permission.AUDIT_READ)])
def list_audit_entries(
    services: ServicesDependency,
    subject: Annotated[
        Reference | None, Query(description="The id of what was done something to.")
    ] = None,
    actor: Annotated[
        str | None, Query(max_length=253, description="Who did it, exactly as entries show it.")
    ] = None,
    action: Annotated[
        str | None, Query(max_length=63, description="What was done, such as submit_job.")
    ] = None,
    since: Annotated[Moment | None, Query(description="At that time or later.")] = None,
    limit: Limit = 50,
    cursor: Annotated[
        int | None, Query(ge=1, le=_LARGEST_NUMBER, description="`next` of the page before.")
    ] = None,
) -> Page[AuditEntryView]:
    """Who did what, when and why, newest first."""
    found = services.audit.find(
        subject=subject, actor=actor, action=action, since=since, before=cursor, limit=limit + 1
    )
    page, last = cut(found, limit)
    return Page[AuditEntryView](
        items=[AuditEntryView.of(entry) for entry in page], next=str(last.number) if last else None
    )


@router.get("/audit/export", responses=problems(), dependencies=[permits(Permission.AUDIT_READ)])
def export_audit_log(
    services: ServicesDependency,
    after: Annotated[
        int, Query(ge=0, le=_LARGEST_NUMBER, description="Only entries with a higher number.")
    ] = 0,
) -> Page[AuditEntryView]:
    """The log from its beginning, 1000 entries at a time, for who verifies its chain of hashes
    (`managed audit verify` does). `next` is the `after` of the page that follows.
    """
    found = services.audit.after(after, _EXPORT_LIMIT + 1)
    page, last = cut(found, _EXPORT_LIMIT)
    return Page[AuditEntryView](
        items=[AuditEntryView.of(entry) for entry in page], next=str(last.number) if last else None
    )


@router.get("/audit/head", responses=problems(), dependencies=[permits(Permission.AUDIT_READ)])
def read_audit_head(services: ServicesDependency) -> AuditHeadView:
    """The last entry as it is kept apart from the log."""
    number, head = services.audit.head()
    return AuditHeadView(number=number, hash=head)


def _new_user(services: Services, body: NewUser) -> User:
    if (body.role is Role.CUSTOMER) != (body.customer is not None):
        raise InvalidInput(
            "a user of the role customer belongs to a customer, and no other does",
            field="customer",
        )
    return User(
        user_id=str(uuid.uuid4()),
        email=body.email.lower(),
        name=body.name,
        role=body.role,
        customer_id=customer_of(services, body.customer).customer_id if body.customer else None,
        created_at=services.clock(),
    )


def _set_disabled(
    services: Services, caller: Caller, request: Request, reference: str, *, disabled: bool
) -> JSONResponse:
    def work(connection: Connection, user: User) -> Answer:
        changed = replace(user, disabled_at=services.clock() if disabled else None)
        services.access.set_disabled(connection, user, changed.disabled_at)
        return Answer(200, UserView.of(changed), subject=user.user_id, facts={"email": user.email})

    return once(services, caller, None, request, None).answer(
        lambda: services.access.user(reference), work
    )


def _end_of_token(services: Services, caller: Caller, wanted: datetime) -> datetime:
    """A token does not outlive the one that it is made with."""
    token_id = caller.principal.token_id
    return min(wanted, services.access.token(token_id).expires_at) if token_id else wanted


def _owner(services: Services, caller: Caller, reference: str | None) -> User:
    """Whose tokens are meant: the caller's own, or the named user's where the caller may."""
    principal = caller.principal
    if reference is not None:
        if reference.lower() in (principal.user_id, principal.name):
            return services.access.user(principal.user_id)
        principal.require(Permission.USERS)
        return services.access.user(reference)
    if principal.user_id == OPERATOR:
        raise InvalidInput(
            "the installation's own token is nobody's", hint="Name a user.", field="user"
        )
    return services.access.user(principal.user_id)
