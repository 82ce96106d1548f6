"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from managed.domain.errors import InvalidInput
from managed.domain.text import without_controls

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many at most.")]
Cursor = Annotated[
    str | None, typer.Option(help="Go on after an earlier page, which ends with this.")
]

_WHOLE = ("id", "job", "kind", "status", "when", "who", "what")
_COLOURS = {
    "succeeded": "green",
    "active": "green",
    "done": "green",
    "ok": "green",
    "running": "cyan",
    "waiting": "cyan",
    "queued": "blue",
    "new": "blue",
    "rescue": "yellow",
    "undone": "yellow",
    "warning": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "broken": "red",
    "missing": "red",
    "undo-failed": "red",
}


@dataclass(frozen=True)
class Titled:
    """A cell that says what its row is about, above the id by which the next command takes it: an
    id as a column of its own leaves a terminal of the usual width no room for others.
    """

    title: str
    id: str


def console(*, as_json: bool = False) -> Console:
    """Standard output as it is now; with JSON there, text for people goes to standard error."""
    return Console(highlight=False, stderr=as_json)


def progress(*, as_json: bool) -> Callable[[str], None]:
    """Says what long work does, a line at a time."""
    out = console(as_json=as_json)
    return lambda line: out.print(plain(line), soft_wrap=True)


def plain(value: object, style: str = "") -> Text:
    """Text from elsewhere as it is: nothing in it is markup, nothing steers a terminal."""
    return Text(without_controls(str(value)), style)


def ask_somebody(*, as_json: bool) -> None:
    """Before a question; InvalidInput where a program reads the answers."""
    if as_json:
        raise InvalidInput(
            "this asks before it goes on, and with --json nobody is asked",
            hint="Give --yes if it is to be done.",
        )


def confirm(question: str, *, yes: bool, as_json: bool) -> None:
    """Go on only when somebody says so, or `yes` has said it already."""
    if not yes:
        ask_somebody(as_json=as_json)
        typer.confirm(question, abort=True)


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def say(document: Mapping[str, Any], sentence: str, *, as_json: bool) -> None:
    """The document for programs, one sentence about it for people."""
    if as_json:
        print_json(document)
    else:
        console().print(plain(sentence), soft_wrap=True)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    empty: str,
    *,
    following: str | None = None,
) -> None:
    """A plain table; `empty` is said instead when there is no row. Colours words of status.
    A cell that is a tuple has its parts below each other. `following` is the cursor of the page
    after this one, if there is one; standard error names it.
    """
    found, out = [tuple(row) for row in rows], console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        # Folded, not cut: what is shown is to be read and copied.
        no_wrap = column in _WHOLE or any(isinstance(row[number], Titled) for row in found)
        table.add_column(column, no_wrap=no_wrap, overflow="ellipsis" if no_wrap else "fold")
    for row in found:
        table.add_row(*(_cell(value, out) for value in row))
    out.print(table if table.row_count else empty)
    if following is not None:
        Console(stderr=True).print(plain(f"more: --cursor {following}", "dim"), soft_wrap=True)


def print_fields(fields: Mapping[str, Any]) -> None:
    """One "name  value" line per field that has a value."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    out = console()
    for name, value in fields.items():
        if value not in (None, "", [], {}, ()):
            table.add_row(name, _cell(value, out))
    out.print(table)


def moment(text: str | None) -> str:
    """A time of the API in UTC, to the second: every time that people read is printed so."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if text else ""


def duration(began: str | None, ended: str | None) -> str:
    if not began or not ended:
        return ""
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} min {rest:02.0f} s" if minutes else f"{rest:.1f} s"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _cell(value: Any, out: Console) -> Text:
    if isinstance(value, Titled):
        title = plain(value.title).wrap(out, max(len(value.id), out.width // 2 - 4))
        return Text("\n").join([*title, Text(value.id, "dim")])
    if isinstance(value, tuple):
        return Text("\n").join(_cell(part, out) for part in value if part not in (None, ""))
    if isinstance(value, Mapping | list):
        return Text(json.dumps(value))
    text = "" if value is None else without_controls(str(value))
    return Text(text, style=_COLOURS.get(text, ""))
