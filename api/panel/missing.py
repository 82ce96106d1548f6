"""Addresses below /panel that are no page: told as a page, too. Comes after all others."""

from __future__ import annotations

from fastapi import APIRouter

from api.panel.route import OpenPageRoute, no_such_page

router = APIRouter(prefix="/panel", route_class=OpenPageRoute, include_in_schema=False)


@router.get("/{path:path}")
def show_nothing(path: str) -> None:
    raise no_such_page()
