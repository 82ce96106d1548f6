"""Cursors of lists whose items have no id: opaque to callers, and checked when they come back."""

from __future__ import annotations

import base64
import json

from managed.domain.errors import InvalidInput


def cursor_of(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def parts_of(cursor: str, count: int) -> tuple[str, ...]:
    """InvalidInput for what `cursor_of` has not made of so many parts."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except ValueError as error:
        raise wrong_cursor() from error
    if isinstance(parts, list) and len(parts) == count:
        texts = tuple(part for part in parts if isinstance(part, str))
        if len(texts) == count:
            return texts
    raise wrong_cursor()


def wrong_cursor() -> InvalidInput:
    return InvalidInput(
        "this is no cursor of this list",
        hint="Give the `next` of the page before as it was, or leave the cursor out.",
        field="cursor",
    )
