"""The page at `/docs`: every route, from the OpenAPI document. It is one page without scripts: the
usual ones load theirs from elsewhere, and whatever runs there could act for who is signed in.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment

_POLICY: Final = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'"
_PAGE: Final = Environment(autoescape=True).from_string(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>managed: the API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{{ style }}"></head><body><main>
<h1>The API</h1>
<p>For programs: <a href="/openapi.json">the OpenAPI document</a>, of which
<code>make client</code> makes a typed Python client.</p>
{% for tag, routes in tags.items() %}<h2>{{ tag }}</h2>
{% for route in routes %}<h3><code>{{ route.method }} {{ route.path }}</code></h3>
<p>{{ route.description }}</p>
{% if route.parameters %}<p>Takes: {% for one in route.parameters %}<code>{{ one }}</code>
{% endfor %}</p>{% endif %}{% endfor %}{% endfor %}
</main></body></html>
"""
)


def install(app: FastAPI, style: str) -> None:
    """Have `/docs` answered by this application; `style` is the address of its style sheet."""

    @app.get("/docs", include_in_schema=False)
    def show_routes(request: Request) -> HTMLResponse:
        """Open to everybody, as the document is."""
        page = _PAGE.render(tags=_by_tag(request.app.openapi()), style=style)
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


def _by_tag(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parameters = [one["name"] for one in operation.get("parameters", [])]
            route = {
                "method": method.upper(),
                "path": path,
                "description": operation["description"],
                "parameters": parameters,
            }
            found.setdefault(operation["tags"][0], []).append(route)
    return found
