"""Who may do what: roles, what each permits, and whose servers are whose."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from managed.domain.errors import Forbidden
from managed.domain.jobs import JobKind


class Role(StrEnum):
    """A customer sees and does what concerns their own servers; support does the daily work on
    everybody's; admin also decides who works here, on what, and under which plans.
    """

    CUSTOMER = "customer"
    SUPPORT = "support"
    ADMIN = "admin"

    @property
    def permissions(self) -> frozenset[Permission]:
        return _OF_ROLE[self]

    @property
    def is_staff(self) -> bool:
        return self is not Role.CUSTOMER


class Permission(StrEnum):
    """What a route asks for, and what a token may be limited to."""

    SERVERS_READ = "servers:read"
    SERVERS_WRITE = "servers:write"
    SERVERS_DELETE = "servers:delete"
    JOBS_READ = "jobs:read"
    JOBS_ASK = "jobs:ask"
    JOBS_WORK = "jobs:work"
    NODES_READ = "nodes:read"
    NODES_WRITE = "nodes:write"
    CUSTOMERS_READ = "customers:read"
    CUSTOMERS_WRITE = "customers:write"
    WINDOWS_READ = "windows:read"
    WINDOWS_WRITE = "windows:write"
    PAUSE = "pause"
    REQUESTS_READ = "requests:read"
    REQUESTS_DECIDE = "requests:decide"
    USERS = "users"
    TOKENS = "tokens"
    NOTIFICATIONS_READ = "notifications:read"
    NOTIFICATIONS_WRITE = "notifications:write"
    AUDIT_READ = "audit:read"


_OF_CUSTOMER: Final = frozenset(
    {
        Permission.SERVERS_READ,
        Permission.JOBS_READ,
        Permission.JOBS_ASK,
        Permission.WINDOWS_READ,
        Permission.TOKENS,
    }
)
_OF_SUPPORT: Final = _OF_CUSTOMER | {
    Permission.SERVERS_WRITE,
    Permission.JOBS_WORK,
    Permission.NODES_READ,
    Permission.CUSTOMERS_READ,
    Permission.WINDOWS_WRITE,
    Permission.PAUSE,
    Permission.REQUESTS_READ,
    Permission.REQUESTS_DECIDE,
    Permission.NOTIFICATIONS_READ,
    Permission.AUDIT_READ,
}
_OF_ROLE: Final = {
    Role.CUSTOMER: _OF_CUSTOMER,
    Role.SUPPORT: _OF_SUPPORT,
    Role.ADMIN: frozenset(Permission),
}
_CUSTOMERS_ASK_FOR: Final = frozenset({JobKind.POWER, JobKind.BACKUP, JobKind.CHECK})


def permission_for(kind: JobKind) -> Permission:
    """What asking for a job of this kind takes. What can lose data, or change a system, is done by
    staff; a customer asks for it in a ticket.
    """
    return Permission.JOBS_ASK if kind in _CUSTOMERS_ASK_FOR else Permission.JOBS_WORK


@dataclass(frozen=True)
class User:
    """Who logs in. `customer_id` is set for the role customer, and only for it."""

    user_id: str
    email: str
    name: str
    role: Role
    customer_id: str | None
    created_at: datetime
    disabled_at: datetime | None = None


@dataclass(frozen=True)
class Principal:
    """Who calls. `scopes` of None permits all that the role does; `token_id` is what they showed,
    empty for the installation's own token.
    """

    user_id: str
    name: str
    role: Role
    customer_id: str | None = None
    scopes: frozenset[Permission] | None = None
    token_id: str = ""

    @property
    def permissions(self) -> frozenset[Permission]:
        of_role = self.role.permissions
        return of_role if self.scopes is None else of_role & self.scopes

    def require(self, permission: Permission) -> None:
        """Forbidden, with what is lacking, unless the caller may."""
        if permission in self.permissions:
            return
        if permission in self.role.permissions:
            raise Forbidden(
                f"this token may not: it lacks the scope {permission}",
                hint="Make a token with that scope, or use one without limits.",
                permission=permission.value,
            )
        raise Forbidden(
            f"the role {self.role} may not: it lacks the permission {permission}",
            hint="Ask somebody with another role to do it; a customer asks in a ticket.",
            permission=permission.value,
        )

    def require_role(self, role: Role) -> None:
        """Forbidden unless the caller may all that this role does: who lets others in as that role
        could come in as them.
        """
        for permission in sorted(role.permissions):
            self.require(permission)

    def sees(self, customer_id: str | None) -> bool:
        """Is what belongs to this customer (None: to the provider) there for the caller at all?"""
        return self.role.is_staff or (customer_id is not None and customer_id == self.customer_id)

    @property
    def tenant(self) -> str | None:
        """The customer to whom all that the caller sees belongs; None for staff, who see all."""
        return None if self.role.is_staff else self.customer_id
