"""`managed rescues`: rescue sessions on record."""

from __future__ import annotations

from typing import Annotated

import typer

from managed.cli.completion import server_names
from managed.cli.connection import client
from managed.cli.output import AsJson, moment, print_json, print_table

app = typer.Typer(
    help="Rescue sessions. `managed jobs submit NAME rescue` opens one, `unrescue` ends it.",
    no_args_is_help=True,
)


@app.command("list")
def list_rescues(
    server: Annotated[
        str | None, typer.Option(help="Only this server's.", autocompletion=server_names)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Ended ones, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List open rescue sessions, newest first."""
    service = client()
    wanted = {"server_id": server, "open": None if every else "true", "limit": 200}
    found = list(service.items("/v1/rescue-sessions", **wanted))
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("id", "server", "began", "until", "ended", "host key"),
        (
            (
                one["id"],
                one["server_id"],
                moment(one["started_at"]),
                moment(one["expires_at"]) or "with its job",
                moment(one["ended_at"]),
                one["host_key"],
            )
            for one in found
        ),
        "No server is in rescue.",
    )
