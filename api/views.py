"""What every answer has: it is frozen, and the OpenAPI document shows a full example of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item", bound="View")
Document = Mapping[str, Any]


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


def shown_as(example: Mapping[str, Any]) -> ConfigDict:
    """The configuration of a view with this example."""
    return ConfigDict(json_schema_extra={"examples": [dict(example)]})


def _items_shown(schema: dict[str, Any], page: type[BaseModel]) -> None:
    (item,) = get_args(page.model_fields["items"].annotation)
    shown = item.model_json_schema()["examples"]
    schema["examples"] = [{"items": shown, "next": None}]


class Page(View, Generic[Item]):
    """One page. `next` is the cursor of the page after it, or null at the end."""

    model_config = ConfigDict(json_schema_extra=_items_shown)
    items: list[Item]
    next: str | None = None
