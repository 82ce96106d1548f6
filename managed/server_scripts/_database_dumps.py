"""What a dump is: the file, how it must end, and what loading it needs to know beside it.

The record beside a dump is made when the database runs and is well. Loading believes the record,
not the restored files, which were copied while they were being written and may be torn.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from managed.server_scripts._run import ScriptFailed, write_atomically

DUMP_DIRECTORY = Path("/var/backups/managed/databases")
POSTGRESQL_END = b"-- PostgreSQL database cluster dump complete"
MYSQL_END = b"-- Dump completed"
DUMP_ENDS = {"postgresql": POSTGRESQL_END, "mariadb": MYSQL_END, "mysql": MYSQL_END}
TAIL_SIZE = 4096


class DumpRecord(NamedTuple):
    """`outside` are paths of the database's files that are not in its data directory; `settings`
    is what a new data directory must have in common with the old one, by kind.
    """

    kind: str
    name: str
    unit: str
    data_directory: str
    outside: list[str]
    settings: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.kind} {self.name}"


def record_path(dump: Path) -> Path:
    return dump.with_name(f"{dump.name}.json")


def write_record(dump: Path, record: DumpRecord) -> None:
    text = json.dumps(record._asdict(), indent=1) + "\n"
    write_atomically(record_path(dump), text.encode())


def read_record(dump: Path) -> DumpRecord:
    """ScriptFailed when it is missing or is none."""
    try:
        record = DumpRecord(**json.loads(record_path(dump).read_text(encoding="utf-8")))
        if record.kind in DUMP_ENDS and os.path.isabs(record.data_directory):
            return record
        why = f"its kind is {record.kind!r}, its data directory {record.data_directory!r}"
    except (OSError, ValueError, TypeError) as error:
        why = str(error)
    raise ScriptFailed(
        f"{dump} can't be loaded: the record beside it can't be used: {why}", "evidence-missing"
    )


def dumps_present() -> list[Path]:
    return sorted(path for path in DUMP_DIRECTORY.glob("*.sql") if not path.name.startswith("."))


def is_complete_dump(path: Path, kind: str) -> bool:
    """Does it end as the dumping program ends a dump that it has finished?"""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_SIZE))
        return DUMP_ENDS[kind] in file.read()
