"""Style sheets and scripts, served from here under names that change with their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "static"

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES: Final = ("panel.css", "panel.js", "icon.svg", "vendor/htmx.min.js", "vendor/sse.min.js")


@dataclass(frozen=True)
class Asset:
    """`served_as` holds a hash of the content: whoever has the file may keep it for ever."""

    served_as: str
    content: bytes
    media_type: str


def _asset(name: str) -> Asset:
    path = FOLDER / name
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    return Asset(f"{digest}-{path.name}", content, _TYPES[path.suffix])


BY_FILE: Final[Mapping[str, Asset]] = {name: _asset(name) for name in _FILES}
BY_ADDRESS: Final[Mapping[str, Asset]] = {asset.served_as: asset for asset in BY_FILE.values()}


def address_of(file: str) -> str:
    """Where a page finds the file."""
    return f"/panel/static/{BY_FILE[file].served_as}"
