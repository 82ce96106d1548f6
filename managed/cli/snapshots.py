"""`managed snapshots`: the backups of a server."""

from __future__ import annotations

from typing import Annotated

import typer

from managed.cli.connection import client
from managed.cli.output import AsJson, moment, print_json, print_table, size

app = typer.Typer(help="The backups of a server.", no_args_is_help=True)


@app.command("list")
def list_snapshots(
    server: Annotated[str, typer.Argument(help="The server's name or id.")],
    as_json: AsJson = False,
) -> None:
    """List a server's backups, newest first. Only verified ones are restored from."""
    page = client().get(f"/v1/servers/{server}/snapshots")
    if as_json:
        print_json(page)
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
            for snapshot in page["items"]
        ),
        f"{server} has no backup yet. Take one with: managed jobs submit {server} backup",
    )
