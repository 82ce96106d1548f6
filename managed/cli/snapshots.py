"""`managed snapshots`: the backups of a server."""

from __future__ import annotations

from typing import Annotated

import typer

from managed.cli.completion import server_names
from managed.cli.connection import client
from managed.cli.output import AsJson, moment, print_json, print_table, size

app = typer.Typer(help="The backups of a server.", no_args_is_help=True)


@app.command("list")
def list_snapshots(
    server: Annotated[
        str, typer.Argument(help="The server's name or id.", autocompletion=server_names)
    ],
    verified: Annotated[
        bool | None,
        typer.Option("--verified/--unverified", help="Only those; or only the others."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List a server's backups, newest first. Only verified ones are restored from."""
    found = list(client().items(f"/v1/servers/{server}/snapshots", verified=verified, limit=200))
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("id", "taken", "files", "size", "verified", "holds"),
        (
            (
                snapshot["id"][:12],
                moment(snapshot["time"]),
                f"{snapshot['files']:,}",
                size(snapshot["size"]),
                moment(snapshot["verified_at"]) or "no",
                ", ".join(snapshot["paths"]) or "the server",
            )
            for snapshot in found
        ),
        f"{server} has no such backup. Take one with: managed jobs submit {server} backup",
    )
