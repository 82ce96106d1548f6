"""`managed servers enrol-csv`: many existing servers at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from managed.cli.connection import client
from managed.cli.jobs import IdempotencyKey
from managed.cli.output import AsJson, Titled, console, plain, print_json, print_table
from managed.client import ApiProblem
from managed.domain.spreadsheets import csv_text

_KEYS: Final = ("name", "address", "ssh_port", "ssh_user", "server_id", "authorized_keys_line")


def enrol_csv(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="A table in CSV with a header: name, address, host_key, and as you need ssh_port,"
            " ssh_user, operating_system, customer, plan.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen; store nothing.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write servers and their keys to this file, as CSV."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Take many existing servers under management: all of the table, or nothing of it.

    Exit status 1 when something in the table is wrong, also of a dry run.
    """
    try:
        answer = client().upload(
            "/v1/servers/enrol/csv",
            file.read_bytes(),
            "text/csv",
            idempotency_key=None if dry_run else idempotency_key,
            dry_run="true" if dry_run else None,
        )
    except ApiProblem as problem:
        if not as_json:
            _print_problems(_of_rows(problem.document))
        raise
    if output:
        rows = ([item[column] for column in _KEYS] for item in answer["items"])
        output.write_text(csv_text(_KEYS, rows), encoding="utf-8", newline="")
    if as_json:
        print_json(answer)
    else:
        _print(answer, output)
    if answer["problems"]:
        raise typer.Exit(1)


def _print(answer: dict[str, Any], output: Path | None) -> None:
    _print_problems(answer["problems"])
    print_table(
        ("line", "server", "ssh"),
        (
            (
                item["line"],
                Titled(item["name"], item["server_id"] or "(dry run)"),
                f"{item['ssh_user']}@{item['address']}:{item['ssh_port']}",
            )
            for item in answer["items"]
        ),
        "No row could be taken over.",
    )
    if answer["dry_run"]:
        console().print("Nothing was stored: this was a dry run.")
        return
    if output:
        console().print(plain(f"The lines for authorized_keys are in {output}."), soft_wrap=True)
    else:
        _print_keys(answer["items"])
    console().print("When each server has its line: managed jobs submit-many enrol --server NAME …")


def _print_keys(items: Sequence[Mapping[str, Any]]) -> None:
    """Each on a line of its own, whole, to be copied."""
    for item in items:
        console().print(plain(f"~{item['ssh_user']}/.ssh/authorized_keys of {item['name']}:"))
        console().print(plain(item["authorized_keys_line"]), soft_wrap=True)


def _of_rows(document: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The errors of a problem document that are of rows; there may be others."""
    errors = (document.get("data") or {}).get("errors") or []
    return [one for one in errors if "line" in one]


def _print_problems(problems: Sequence[dict[str, Any]]) -> None:
    if problems:
        print_table(
            ("line", "column", "what is wrong"),
            ((one["line"], one["column"], one["message"]) for one in problems),
            "",
        )
