"""Taking existing servers under management: one by one, or many by a table in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from managed.domain.errors import InvalidInput, Json
from managed.domain.public_keys import checked_public_key
from managed.domain.servers import (
    Server,
    ServerOrigin,
    ServerStatus,
    checked_address,
    checked_name,
    checked_user,
)

MOST_ROWS: Final = 1000
SSH_PORTS: Final = (1, 65535)
_LONGEST_TEXT: Final = 100
_REQUIRED: Final = ("name", "address", "host_key")
_USUAL: Final = {"ssh_port": "22", "ssh_user": "root"}
COLUMNS: Final = (*_REQUIRED, *_USUAL, "operating_system", "customer", "plan")
_KNOWN: Final = f"the columns are {', '.join(COLUMNS)}"


def enrolled_server(
    server_id: str,
    now: datetime,
    *,
    name: str,
    address: str,
    ssh_port: int,
    ssh_user: str,
    host_key: str,
    operating_system: str,
) -> Server:
    """InvalidInput for what cannot be a name, an address, a login or a host key."""
    return Server(
        server_id=server_id,
        name=checked_name(name),
        origin=ServerOrigin.ENROLLED,
        status=ServerStatus.NEW,
        address=checked_address(address),
        ssh_port=ssh_port,
        ssh_user=checked_user(ssh_user),
        host_key=checked_public_key(host_key, "host_key"),
        operating_system=operating_system,
        created_at=now,
    )


@dataclass(frozen=True)
class RowProblem:
    """What is wrong at a line; `column` is empty where the line as a whole is meant."""

    line: int
    column: str
    message: str

    def as_json(self) -> dict[str, Json]:
        return {"line": self.line, "column": self.column, "message": self.message}


@dataclass(frozen=True)
class EnrolmentRow:
    """A server of the table. `customer` and `plan` are names or ids, empty for none."""

    line: int
    name: str
    address: str
    ssh_port: int
    ssh_user: str
    host_key: str
    operating_system: str
    customer: str
    plan: str


@dataclass(frozen=True)
class EnrolmentTable:
    """The rows that are good by themselves, and everything that is wrong with the others."""

    rows: Sequence[EnrolmentRow] = ()
    problems: Sequence[RowProblem] = ()


def read_table(content: bytes) -> EnrolmentTable:
    """The table with its header, whose columns come in any order. UTF-8, also with the mark that
    spreadsheets put at its beginning; lines end as they like. Blank lines are left out.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return _refused(line, "this is not UTF-8; export the table as CSV in UTF-8")
    records, problem = _records(text)
    if problem is not None:
        return EnrolmentTable(problems=(problem,))
    if not records:
        return _refused(1, f"there is no header; {_KNOWN}")
    (line, header), *rows = records
    header = [column.strip() for column in header]
    problems = _header_problems(line, header)
    if not problems and not rows:
        problems = [RowProblem(line, "", "there is nothing below the header")]
    if len(rows) > MOST_ROWS:
        message = f"there are {len(rows)} rows; a table has at most {MOST_ROWS}"
        problems.append(RowProblem(rows[MOST_ROWS][0], "", message))
    return EnrolmentTable(problems=tuple(problems)) if problems else _checked(header, rows)


def _refused(line: int, message: str) -> EnrolmentTable:
    return EnrolmentTable(problems=(RowProblem(line, "", message),))


def _records(text: str) -> tuple[list[tuple[int, list[str]]], RowProblem | None]:
    """The records that are not blank, with the line on which each begins; or where CSV ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found, begins = [], 1
    try:
        for record in reader:
            if any(value.strip() for value in record):
                found.append((begins, record))
            begins = reader.line_num + 1
    except csv.Error as error:
        return [], RowProblem(begins, "", f"this is not CSV: {error}")
    return found, None


def _header_problems(line: int, header: Sequence[str]) -> list[RowProblem]:
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        return [RowProblem(line, "", "columns are separated by commas")]
    unknown = [
        RowProblem(line, column[:_LONGEST_TEXT], f"there is no such column; {_KNOWN}")
        for column in header
        if column not in COLUMNS
    ]
    double = [
        RowProblem(line, column, "this column is there twice")
        for column in COLUMNS
        if header.count(column) > 1
    ]
    missing = [
        RowProblem(line, column, "this column is needed")
        for column in _REQUIRED
        if column not in header
    ]
    return unknown + double + missing


def _checked(header: Sequence[str], records: Sequence[tuple[int, list[str]]]) -> EnrolmentTable:
    rows: list[EnrolmentRow] = []
    problems: list[RowProblem] = []
    lines: dict[str, int] = {}
    for line, record in records:
        found = _row(line, header, record)
        if isinstance(found, EnrolmentRow) and found.name in lines:
            message = f"line {lines[found.name]} has this name already"
            found = [RowProblem(line, "name", message)]
        if isinstance(found, EnrolmentRow):
            lines[found.name] = line
            rows.append(found)
        else:
            problems.extend(found)
    return EnrolmentTable(rows, problems)


def _row(
    line: int, header: Sequence[str], record: Sequence[str]
) -> EnrolmentRow | list[RowProblem]:
    if len(record) != len(header):
        message = f"it has {len(record)} values, and the header {len(header)}"
        return [RowProblem(line, "", message)]
    given = dict(zip(header, (value.strip() for value in record), strict=True))
    values: dict[str, str] = {}
    problems = []
    for column, check in _CHECKS.items():
        try:
            values[column] = check(given.get(column) or _USUAL.get(column, ""))
        except InvalidInput as error:
            problems.append(RowProblem(line, column, f"{error.message}. {error.hint}".rstrip(". ")))
    if problems:
        return problems
    port = int(values.pop("ssh_port"))
    return EnrolmentRow(line=line, ssh_port=port, **values)


def _port(text: str) -> str:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise InvalidInput("this is not a port")
    low, high = SSH_PORTS
    if not low <= int(text) <= high:
        raise InvalidInput(f"a port is from {low} to {high}")
    return text


def _text(text: str) -> str:
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        raise InvalidInput(f"it has at most {_LONGEST_TEXT} printable characters")
    return text


_CHECKS: Final[Mapping[str, Callable[[str], str]]] = {
    "name": checked_name,
    "address": checked_address,
    "host_key": lambda line: checked_public_key(line, "host_key"),
    "ssh_port": _port,
    "ssh_user": checked_user,
    "operating_system": _text,
    "customer": _text,
    "plan": _text,
}
