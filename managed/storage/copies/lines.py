"""Tables as JSON lines and back, the same for both engines.

Values that JSON does not know are told by their column's kind: times as ISO text, bytes as base64,
and JSON as the very text that the database holds, so that its null and no value stay two things.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    String,
    TableClause,
    Text,
    cast,
    column,
    insert,
    select,
    table,
    type_coerce,
)
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from managed.storage.tables import metadata
from managed.storage.tables.columns import UtcDateTime

_ROWS_AT_ONCE: Final = 2000


class ColumnKind(StrEnum):
    PLAIN = "plain"
    TIME = "time"
    JSON = "json"
    BYTES = "bytes"


_KINDS: Final[tuple[tuple[type[TypeEngine[Any]], ColumnKind], ...]] = (
    (DateTime, ColumnKind.TIME),
    (JSON, ColumnKind.JSON),
    (LargeBinary, ColumnKind.BYTES),
    *((plain, ColumnKind.PLAIN) for plain in (String, Integer, Boolean, Float)),
)
_AS_JSON: Final[dict[ColumnKind, Callable[[Any], Any]]] = {
    ColumnKind.TIME: datetime.isoformat,
    ColumnKind.BYTES: lambda value: base64.b64encode(value).decode(),
}
_FROM_JSON: Final[dict[ColumnKind, Callable[[Any], Any]]] = {
    ColumnKind.TIME: datetime.fromisoformat,
    ColumnKind.BYTES: base64.b64decode,
}
_TYPES: Final[dict[ColumnKind, TypeEngine[Any]]] = {
    ColumnKind.TIME: UtcDateTime(),
    ColumnKind.BYTES: LargeBinary(),
}


def kind_of(one: Column[Any]) -> ColumnKind:
    """TypeError for a column of a type that copies do not know."""
    plain = one.type.impl if isinstance(one.type, TypeDecorator) else one.type
    for known, kind in _KINDS:
        if isinstance(plain, known):
            return kind
    raise TypeError(f"copies of the control plane do not know the type of {one}: {one.type!r}")


class TableDump:
    """Every table, those that others refer to first. `rows` counts what has been given out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.rows: dict[str, int] = {}

    def lines(self) -> Iterator[bytes]:
        for one in metadata.sorted_tables:
            kinds = [kind_of(c) for c in one.columns]
            columns = [[c.name, kind] for c, kind in zip(one.columns, kinds, strict=True)]
            yield _line({"table": one.name, "columns": columns})
            self.rows[one.name] = 0
            query = select(*(_read(c, kind) for c, kind in zip(one.columns, kinds, strict=True)))
            options = {"stream_results": True, "yield_per": _ROWS_AT_ONCE}
            for row in self._connection.execute(query, execution_options=options):
                self.rows[one.name] += 1
                yield _line(_converted(row, [_AS_JSON.get(kind) for kind in kinds]))


def cut(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Lines in parts of about `size` bytes; no line is in two of them."""
    held: list[bytes] = []
    length = 0
    for line in lines:
        held.append(line)
        length += len(line)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)


def count_rows(parts: Iterable[bytes]) -> dict[str, int]:
    """Rows by table, as the lines have them."""
    rows: dict[str, int] = {}
    name = ""
    for line in _lines(parts):
        if line.startswith(b"{"):
            name = json.loads(line)["table"]
            rows[name] = 0
        else:
            rows[name] += 1
    return rows


def load(connection: Connection, parts: Iterable[bytes]) -> None:
    """Insert every row. The tables are there, empty, with the columns that they had."""
    target: _Target | None = None
    for part in parts:
        rows: list[list[Any]] = []
        for line in _lines([part]):
            document = json.loads(line)
            if isinstance(document, list):
                rows.append(document)
                continue
            if target is not None:
                target.insert(connection, rows)
            target, rows = _Target(document), []
        if target is not None:
            target.insert(connection, rows)


class _Target:
    """A table as the copy knows it, whatever this version's own looks like."""

    def __init__(self, document: dict[str, Any]) -> None:
        kinds = [ColumnKind(kind) for _, kind in document["columns"]]
        self._names = [name for name, _ in document["columns"]]
        self._converters = [_FROM_JSON.get(kind) for kind in kinds]
        typed = zip(self._names, kinds, strict=True)
        columns = [column(name, _TYPES.get(kind, NullType())) for name, kind in typed]
        self._table: TableClause = table(document["table"], *columns)

    def insert(self, connection: Connection, rows: Sequence[list[Any]]) -> None:
        for some in _batches(rows):
            values = [_converted(row, self._converters) for row in some]
            connection.execute(
                insert(self._table), [dict(zip(self._names, row, strict=True)) for row in values]
            )


def _batches(rows: Sequence[list[Any]]) -> Iterator[Sequence[list[Any]]]:
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[begin : begin + _ROWS_AT_ONCE]


def _read(one: Column[Any], kind: ColumnKind) -> ColumnElement[Any]:
    if kind is ColumnKind.JSON:
        return cast(one, Text)
    return type_coerce(one, UtcDateTime()) if kind is ColumnKind.TIME else one


def _converted(row: Iterable[Any], converters: Sequence[Callable[[Any], Any] | None]) -> list[Any]:
    return [
        value if value is None or convert is None else convert(value)
        for value, convert in zip(row, converters, strict=True)
    ]


def _line(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        yield from part.splitlines()
