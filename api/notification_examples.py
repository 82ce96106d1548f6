"""One full example of each answer about notifications, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from api.examples import CUSTOMER_ID, SERVER_ID, Example

TARGET_ID: Final = "2c1f9e8d-7b6a-4c5d-8e4f-3a2b1c0d9e8f"
NOTIFICATION_ID: Final = "77aa6b5c-4d3e-4f2a-9b1c-0d9e8f7a6b5c"

TARGET: Final[Example] = {
    "id": TARGET_ID,
    "kind": "webhook",
    "address": "https://hooks.example.org/managed",
    "occasions": ["job-failed", "window-missed"],
    "customer_id": CUSTOMER_ID,
    "created_at": "2026-11-20T09:30:00Z",
}

NEW_TARGET: Final[Example] = {**TARGET, "secret": "an-example-and-nobodys-secret"}

TRIAL: Final[Example] = {
    "delivered": False,
    "detail": "the webhook answered with HTTP status 404",
    "hint": "It is to answer with a status from 200 to 299; redirects are not followed.",
}

NOTIFICATION: Final[Example] = {
    "id": NOTIFICATION_ID,
    "target_id": TARGET_ID,
    "occasion": "job-failed",
    "server_id": SERVER_ID,
    "at": "2026-11-23T02:10:00Z",
    "status": "waiting",
    "delivery_id": "0c1d2e3f-4a5b-4c6d-9e7f-8a9b0c1d2e3f",
    "attempts": 2,
    "next_attempt_at": "2026-11-23T02:13:10Z",
    "ended_at": None,
    "last_error": "the webhook answered with HTTP status 503",
}
