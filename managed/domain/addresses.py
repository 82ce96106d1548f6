"""Where something listens, as a setting says it."""

from __future__ import annotations

import re
from typing import Final

from managed.domain.errors import InvalidInput

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<bracketed>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>\d+)"
)


def host_and_port(text: str, setting: str) -> tuple[str, int]:
    """Of "127.0.0.1:9108", "[::1]:9108" or "host:9108"; InvalidInput that names the setting."""
    match = _ADDRESS.fullmatch(text)
    port = int(match["port"]) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise InvalidInput(
            f"{setting} is no address to listen at",
            hint="It looks like 127.0.0.1:9108 or [::1]:9108.",
        )
    return match["bracketed"] or match["host"], port
