"""Pages from templates. Every value is escaped where it stands, whoever wrote it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from api.dependencies import services
from api.panel.assets import address_of
from managed.domain.errors import ManagedError
from managed.domain.text import without_controls

_LONGEST_DOCUMENT: Final = 20_000
_NEAR: Final = timedelta(days=182)
_NOTHING: Final = Markup("–")  # noqa: RUF001 (a dash for nothing)

TEMPLATES: Final = Environment(
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
    """A whole page. Who is signed in, if somebody is, is known to every template as `visitor`, and
    the time as `now`.
    """
    text = rendered(template, **_known_to_all(request), **values)
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
    content = rendered(part, **_known_to_all(request), **values)
    version = hashlib.sha256(content.encode()).hexdigest()[:16]
    if seen == version:
        return Response(status_code=204)
    values |= {"content": Markup(content), "version": version}  # noqa: S704 (rendered above)
    return page(request, "_living.html" if seen else template, **values)


def _known_to_all(request: Request) -> dict[str, Any]:
    visitor = getattr(request.state, "visitor", None)
    return {"visitor": visitor, "now": services(request).clock()}


def rendered(template: str, **values: Any) -> str:
    return TEMPLATES.get_template(template).render(**values)


@pass_context
def _moment(context: Context, at: datetime | None) -> Markup:
    """A time as people read it, in UTC, with the exact one for programs."""
    return _time(at, moment_words(at, context["now"])) if at else _NOTHING


def _full_moment(at: datetime | None) -> Markup:
    """The same with the year in any case: for what is chosen, or kept, by its date."""
    return _time(at, f"{_day(at)} {at.astimezone(UTC):%Y %H:%M} UTC") if at else _NOTHING


def _clock(at: datetime, since: datetime) -> Markup:
    """The time of day in UTC, to the second, of what began at `since`; with the date on other
    days than the first.
    """
    at = at.astimezone(UTC)
    is_first_day = at.date() == since.astimezone(UTC).date()
    return _time(at, f"{at:%H:%M:%S}" if is_first_day else f"{_day(at)} {at:%H:%M:%S}")


def moment_words(at: datetime, now: datetime) -> str:
    """A time in UTC; with its year where somebody might take it for another one's."""
    year = "" if abs(now - at) < _NEAR else f" {at.astimezone(UTC).year}"
    return f"{_day(at)}{year} {at.astimezone(UTC):%H:%M} UTC"


def _day(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at:%a} {at.day} {at:%b}"


def _time(at: datetime, words: str) -> Markup:
    exact = at.astimezone(UTC).isoformat(timespec="seconds")
    return Markup('<time datetime="{}">{}</time>').format(exact, words)


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


TEMPLATES.globals["asset"] = address_of
TEMPLATES.filters.update(
    {
        "moment": _moment,
        "full_moment": _full_moment,
        "clock": _clock,
        "size": _size,
        "document": _document,
        "plain": _plain,
    }
)
