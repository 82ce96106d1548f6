"""Who is told of what went wrong, and what they have been told."""

from __future__ import annotations

import threading
import uuid
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from api.auth import CallerDependency, GuardedRoute, permits
from api.dependencies import Services, ServicesDependency
from api.idempotency import Answer, once
from api.notification_examples import TARGET_ID
from api.notification_requests import NewTarget
from api.notification_views import NewTargetView, NotificationView, TargetView, TrialView
from api.planning_requests import Title
from api.routes._common import Limit, cut, problems
from api.routes.customers import customer_of
from api.views import Page
from managed.domain.access import Permission
from managed.domain.errors import Json, NotDelivered, NotFound, NotSupported, Unavailable
from managed.domain.notice_texts import trial_message
from managed.domain.notifications import Target, TargetKind, Telling, checked_mail_address
from managed.domain.secrets import SecretPurpose, new_password
from managed.domain.webhooks import checked_url

router = APIRouter(prefix="/v1", tags=["notifications"], route_class=GuardedRoute)

# Each takes one of the threads that answer requests.
_TRIALS: Final = threading.BoundedSemaphore(4)
_LONG_TRIAL_SECONDS: Final = 15

TargetReference = Annotated[uuid.UUID, Path(description="The target's id.", examples=[TARGET_ID])]
OfCustomer = Annotated[
    Title | None, Query(description="A customer's id or name: only that one's targets.")
]
IdCursor = Annotated[uuid.UUID | None, Query(description="`next` of the page before.")]


@router.post(
    "/notification-targets",
    status_code=201,
    response_model=NewTargetView,
    responses=problems(404, 409, 413),
    dependencies=[permits(Permission.NOTIFICATIONS_WRITE)],
)
def add_notification_target(
    body: NewTarget, request: Request, services: ServicesDependency, caller: CallerDependency
) -> JSONResponse:
    """Add somebody to tell. The answer holds a webhook's secret, which is shown this once: it takes
    no Idempotency-Key, because answers to those are kept. The same address again is refused.
    """

    def add(connection: Connection, target: Target) -> Answer:
        services.targets.add(connection, target)
        secret = None
        if target.kind is TargetKind.WEBHOOK:
            secret = new_password()
            services.vault.keep_within(
                connection, target.target_id, SecretPurpose.WEBHOOK_KEY, secret
            )
        view = NewTargetView.of_new(target, secret.reveal() if secret else None)
        return Answer(
            201,
            view,
            f"/v1/notification-targets/{target.target_id}",
            subject=target.target_id,
            facts=_facts(target),
        )

    return once(services, caller, None, request, body).answer(lambda: _target(services, body), add)


@router.get(
    "/notification-targets",
    responses=problems(404),
    dependencies=[permits(Permission.NOTIFICATIONS_READ)],
)
def list_notification_targets(
    services: ServicesDependency,
    customer: OfCustomer = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[TargetView]:
    """Who is told, in the order of their ids."""
    found = services.targets.find(
        customer_id=_customer_id(services, customer),
        after=services.targets.get(str(cursor)) if cursor else None,
        limit=limit + 1,
    )
    page, last = cut(found, limit)
    return Page[TargetView](
        items=[TargetView.of(target) for target in page], next=last.target_id if last else None
    )


@router.get(
    "/notification-targets/{target_id}",
    responses=problems(404),
    dependencies=[permits(Permission.NOTIFICATIONS_READ)],
)
def read_notification_target(
    target_id: TargetReference, services: ServicesDependency
) -> TargetView:
    """One target, without its secret."""
    return TargetView.of(services.targets.get(str(target_id)))


@router.delete(
    "/notification-targets/{target_id}",
    response_model=TargetView,
    responses=problems(404),
    dependencies=[permits(Permission.NOTIFICATIONS_WRITE)],
)
def remove_notification_target(
    target_id: TargetReference,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Tell this one no more, also of what is on its way; answers what it was."""

    def remove(connection: Connection, target: Target) -> Answer:
        services.targets.remove(connection, target.target_id)
        services.vault.forget_within(connection, target.target_id)
        return Answer(200, TargetView.of(target), subject=target.target_id, facts=_facts(target))

    return once(services, caller, None, request, None).answer(
        lambda: services.targets.get(str(target_id)), remove
    )


@router.post(
    "/notification-targets/{target_id}/test",
    response_model=TrialView,
    responses=problems(404),
    dependencies=[permits(Permission.NOTIFICATIONS_WRITE)],
)
def try_notification_target(
    target_id: TargetReference,
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
) -> JSONResponse:
    """Send a test message now, and say whether it was taken. It is not tried again. Few are sent at
    once: who is tested may be silent for long.
    """

    def attempt() -> tuple[Target, NotDelivered | None]:
        target = services.targets.get(str(target_id))
        if not _TRIALS.acquire(blocking=False):
            raise Unavailable("other targets are being tested", retry_after=_LONG_TRIAL_SECONDS)
        try:
            return target, _trial_failure(services, target)
        finally:
            _TRIALS.release()

    def enter(_: Connection, tried: tuple[Target, NotDelivered | None]) -> Answer:
        target, failure = tried
        return Answer(200, TrialView.of(failure), subject=target.target_id, facts=_facts(target))

    return once(services, caller, None, request, None).answer(attempt, enter)


@router.get(
    "/notifications", responses=problems(404), dependencies=[permits(Permission.NOTIFICATIONS_READ)]
)
def list_notifications(
    services: ServicesDependency,
    status: Annotated[
        Telling | None, Query(description="Only those that have come this far.")
    ] = None,
    customer: OfCustomer = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[NotificationView]:
    """What was told in the last three months or is still to be, newest first: one for each target
    and incident.
    """
    before = services.notifications.get(str(cursor)) if cursor else None
    if cursor and before is None:
        raise NotFound(f"there is no notification {cursor}", hint="Begin with the first page.")
    found = services.notifications.find(
        status=status,
        customer_id=_customer_id(services, customer),
        before=before,
        limit=limit + 1,
    )
    page, last = cut(found, limit)
    return Page[NotificationView](
        items=[NotificationView.of(record) for record in page],
        next=last.notice.notice_id if last else None,
    )


def _facts(target: Target) -> dict[str, Json]:
    return {
        "kind": target.kind.value,
        "address": target.address,
        "customer_id": target.customer_id,
    }


def _trial_failure(services: Services, target: Target) -> NotDelivered | None:
    """Why a test message was not taken, or None when it was."""
    refusal = _no_way_to_tell(services, target.kind)
    if refusal is not None:
        return NotDelivered(refusal.message, hint=refusal.hint)
    told = trial_message(target)
    try:
        services.notifiers[target.kind].deliver(target, told, str(uuid.uuid4()), services.clock())
    except NotDelivered as error:
        return error
    return None


def _target(services: Services, body: NewTarget) -> Target:
    refusal = _no_way_to_tell(services, body.kind)
    if refusal is not None:
        raise refusal
    return Target(
        target_id=str(uuid.uuid4()),
        kind=body.kind,
        address=_checked_address(body.kind, body.address),
        occasions=body.occasions,
        customer_id=_customer_id(services, body.customer),
        created_at=services.clock(),
    )


def _customer_id(services: Services, reference: str | None) -> str | None:
    return customer_of(services, reference).customer_id if reference else None


def _checked_address(kind: TargetKind, address: str) -> str:
    match kind:
        case TargetKind.EMAIL:
            return checked_mail_address(address)
        case TargetKind.WEBHOOK:
            return checked_url(address)


def _no_way_to_tell(services: Services, kind: TargetKind) -> NotSupported | None:
    """Why nobody can be told in this way here, or None."""
    if kind in services.notifiers:
        return None
    return NotSupported(
        "this service sends no mails: it has no mail server",
        hint="Set MANAGED_SMTP_HOST and MANAGED_SMTP_FROM, and start the service again.",
    )
