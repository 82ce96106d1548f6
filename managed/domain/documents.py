"""Documents that servers write: root there may put anything into them.

They are read with a bound and as strict JSON, and what is kept of them is made fit for every
database and every reader.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from managed.domain.errors import EvidenceMissing, Json

LARGEST_DOCUMENT: Final = 4 * 1024 * 1024
"""Bytes of the JSON of a result; the largest real ones, with all packages, have some 200 000."""

_DEEPEST: Final = 50
_UNFIT: Final = re.compile("[\0\ud800-\udfff]")


def parsed_document(content: bytes, what: str) -> dict[str, Json]:
    """The JSON object that `what` holds. EvidenceMissing when it holds anything else, a number that
    JSON does not know (NaN, Infinity, 1e999) among it, or is larger than LARGEST_DOCUMENT.
    """
    if len(content) > LARGEST_DOCUMENT:
        raise EvidenceMissing(f"{what} is larger than {LARGEST_DOCUMENT} bytes")
    try:
        document = json.loads(content, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise EvidenceMissing(f"{what} is no JSON document") from error
    if not isinstance(document, dict):
        raise EvidenceMissing(f"{what} holds no object")
    return document


def mapping_in(document: Mapping[str, Json], name: str) -> dict[str, Json]:
    """The object of that name; an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def list_in(document: Mapping[str, Json], name: str) -> list[Json]:
    """The list of that name; an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, list) else []


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number in JSON")
    return number


def require_bounded(result: Mapping[str, Json]) -> None:
    """EvidenceMissing when a step's result is larger than anything that is worth keeping."""
    if len(json.dumps(result)) > LARGEST_DOCUMENT:
        raise EvidenceMissing(f"the step's result is larger than {LARGEST_DOCUMENT} bytes")


def storable(value: Any) -> Any:
    """The same JSON value as every database takes it and every client can be shown it.

    Bytes that were no UTF-8 (lone surrogates) and NUL are written with a backslash, as `ls` prints
    names; NaN and infinities become words; what is nested without end is cut off.
    """
    return _storable(value, _DEEPEST)


def _storable(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, dict | list | tuple):
        return value
    if levels == 0:
        return "…"
    if isinstance(value, dict):
        return {_storable(key, 0): _storable(item, levels - 1) for key, item in value.items()}
    return [_storable(item, levels - 1) for item in value]


def printable(text: str) -> str:
    """Text that UTF-8 can hold, without NUL: a byte 0xe9 that was no character becomes \\xe9."""
    return _UNFIT.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code == 0 or 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}"
