"""Pages from templates. Every value is escaped where it stands, whoever wrote it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from api.panel.assets import address_of
from managed.domain.errors import ManagedError
from managed.domain.text import without_controls

_LONGEST_DOCUMENT: Final = 20_000

_templates: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """A whole page. Who is signed in, if somebody is, is known to every template as `visitor`."""
    visitor = getattr(request.state, "visitor", None)
    text = rendered(template, visitor=visitor, **values)
    return HTMLResponse(text, status, headers)


def error_page(
    request: Request,
    status: int,
    error: ManagedError,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """What is wrong and what to do about it."""
    return page(request, "error.html", status=status, headers=headers, error=error)


def living_page(
    request: Request, template: str, part: str, *, seen: str | None, **values: Any
) -> Response:
    """A page of which one part (a template of its own) is asked for again and again: with `seen`
    the answer is that part alone, and nothing when it is as it was. So nothing moves under the
    eyes, the focus and the selection of who reads, unless there is news.
    """
    visitor = getattr(request.state, "visitor", None)
    content = rendered(part, visitor=visitor, **values)
    version = hashlib.sha256(content.encode()).hexdigest()[:16]
    if seen == version:
        return Response(status_code=204)
    values |= {"content": Markup(content), "version": version}  # noqa: S704 (rendered above)
    return page(request, "_living.html" if seen else template, **values)


def rendered(template: str, **values: Any) -> str:
    return _templates.get_template(template).render(**values)


def _moment(at: datetime | None) -> Markup:
    """A time as people read it, in UTC, with the exact one for programs."""
    if at is None:
        return Markup("–")  # noqa: RUF001 (a dash for nothing)
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        at.isoformat(timespec="seconds"), f"{at:%a} {at.day} {at:%b %H:%M}"
    )


def _clock(at: datetime) -> Markup:
    """The time of day in UTC, to the second."""
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{:%H:%M:%S}</time>').format(at.isoformat(), at)


def _size(size: int) -> str:
    """Bytes as people read them."""
    number, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def _document(value: Any) -> str:
    """JSON for people, cut where it is longer than anybody reads."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    cut = "\n… (the API has all of it)" if len(text) > _LONGEST_DOCUMENT else ""
    return without_controls(text[:_LONGEST_DOCUMENT]) + cut


def _plain(value: object) -> str:
    return without_controls(str(value))


_templates.globals["asset"] = address_of
_templates.filters.update(
    {"moment": _moment, "clock": _clock, "size": _size, "document": _document, "plain": _plain}
)
