"""Unknown query parameters are refused: a misspelt filter must not pass as no filter."""

from __future__ import annotations

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute

from managed.domain.errors import InvalidInput


def known_query(request: Request) -> None:
    """InvalidInput naming the first parameter that this route does not take, or whose value has a
    character that no database keeps. A dependency.
    """
    for value in (*request.query_params.values(), *request.path_params.values()):
        if "\0" in str(value):
            raise InvalidInput("the address of the request holds a NUL character")
    known = _parameters(request.scope["route"])
    for name in request.query_params:
        if name not in known:
            raise InvalidInput(
                f"{name[:100]}: this route takes no such query parameter",
                hint=f"It takes {', '.join(sorted(known))}." if known else "It takes none at all.",
                field=name[:100],
            )


def _parameters(route: APIRoute) -> frozenset[str]:
    return frozenset(
        parameter.alias
        for parameter in get_flat_params(route.dependant)
        if isinstance(parameter.field_info, Query)
    )
