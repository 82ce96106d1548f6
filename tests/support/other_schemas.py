"""Copies as another version of managed would have made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from sqlalchemy import create_engine, inspect

from managed.domain.copies import copy_name
from managed.ports import ObjectStore
from managed.storage.copies.lines import count_rows
from managed.storage.copies.sealing import CopyKeys, new_salt
from managed.storage.copies.shelf import OpenedCopy, Shelf
from managed.storage.schema import upgrade
from tests.support.control_plane import MASTER_KEY

Columns = Mapping[str, Collection[str]]


def columns_at(revision: str) -> Columns:
    """The tables of this schema with their columns."""
    with create_engine("sqlite://").begin() as connection:
        upgrade(connection, revision)
        found = inspect(connection)
        return {
            name: {column["name"] for column in found.get_columns(name)}
            for name in found.get_table_names()
        }


def as_of_schema(objects: ObjectStore, name: str, schema: str, columns: Columns) -> str:
    """The name of a copy like this one, that is of the schema and holds only these columns."""
    shelf = Shelf(objects, MASTER_KEY)
    original = shelf.open(name).manifest
    plain = b"".join(_only(b"".join(shelf.parts(shelf.open(name))), columns))
    other = copy_name(original.taken_at, hashlib.sha256(schema.encode()).hexdigest()[:8])
    keys = CopyKeys(MASTER_KEY, other, new_salt())
    size = shelf.put_part(keys, other, 0, plain)
    manifest = replace(
        original,
        name=other,
        schema=schema,
        rows=count_rows([plain]),
        parts=1,
        plain_size=len(plain),
        sealed_size=size,
        sha256=hashlib.sha256(plain).hexdigest(),
    )
    shelf.put_manifest(OpenedCopy(manifest, keys))
    return other


def _only(plain: bytes, columns: Columns) -> Iterator[bytes]:
    places: list[int] | None = None
    for line in plain.splitlines():
        document = json.loads(line)
        if isinstance(document, dict):
            known = columns.get(document["table"])
            names = [column for column, _ in document["columns"]]
            places = None if known is None else [i for i, n in enumerate(names) if n in known]
            if places is not None:
                document["columns"] = [document["columns"][place] for place in places]
        elif places is not None:
            document = [document[place] for place in places]
        if places is not None:
            yield json.dumps(document).encode() + b"\n"
