"""`managed rescues`: rescue sessions on record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from managed.cli.completion import server_names
from managed.cli.connection import client
from managed.cli.names import Names
from managed.cli.output import AsJson, Titled, moment, print_json, print_table

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
    names = Names(service).servers(one["server_id"] for one in found)
    print_table(
        ("server", "session, host key"),
        (
            (
                Titled(names[one["server_id"]], one["id"]),
                (f"began {moment(one['started_at'])}", _end(one), one["host_key"]),
            )
            for one in found
        ),
        "No server is in rescue.",
    )


def _end(session: Mapping[str, Any]) -> str:
    if session["ended_at"]:
        return f"ended {moment(session['ended_at'])}"
    if session["expires_at"]:
        return f"until {moment(session['expires_at'])}"
    return "until its job ends"
