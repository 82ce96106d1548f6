"""`managed servers restore-files` and `managed snapshots paths`: single files and folders."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from managed.cli.connection import client
from managed.cli.following import follow
from managed.cli.jobs import IdempotencyKey, Verbose, say_submitted
from managed.cli.output import AsJson, console, moment, plain, print_json, print_table, size
from managed.cli.servers import Watch
from managed.client import ManagedClient
from managed.domain.errors import InvalidInput, NotFound


def add_to(servers: typer.Typer, snapshots: typer.Typer) -> None:
    """Register the commands with the groups that they belong to."""
    servers.command("restore-files")(restore_files)
    snapshots.command("paths")(list_paths)


def restore_files(
    server: Annotated[str, typer.Argument(help="The server whose backup is read: name or id.")],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="Files and folders, by absolute paths.")
    ],
    as_of: Annotated[
        datetime | None,
        typer.Option(help="From the newest backup not after this time, of this machine's zone."),
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="From this snapshot; the beginning of its id is enough.")
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Over what is there now, after a safety snapshot; else beside it."
        ),
    ] = False,
    to: Annotated[
        str | None, typer.Option(metavar="OTHER", help="To another server of the same customer.")
    ] = None,
    idempotency_key: IdempotencyKey = None,
    watch: Watch = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Bring files and folders back from a backup, into a new folder or in place."""
    service = client()
    body: dict[str, Any] = {
        "kind": "restore-files",
        "paths": paths,
        "target": "in-place" if in_place else "beside",
    }
    if as_of is not None:
        body["as_of"] = as_of.astimezone().isoformat()
    if snapshot is not None:
        body["snapshot_id"] = whole_id(service, server, snapshot)
    if to is not None:
        body["from_server"] = server
    path = f"/v1/servers/{to or server}/jobs"
    job = service.post(path, body, idempotency_key=idempotency_key)
    if watch:
        follow(service, job, as_json=as_json, verbose=verbose)
        if not as_json:
            say_where(service.get(f"/v1/jobs/{job['id']}"))
    elif as_json:
        print_json(job)
    else:
        say_submitted(job)


def list_paths(
    server: Annotated[str, typer.Argument(help="The server's name or id.")],
    snapshot: Annotated[
        str | None,
        typer.Argument(help="The beginning of the snapshot's id; left out: the newest verified."),
    ] = None,
    under: Annotated[str, typer.Option(help="The folder that is looked into.")] = "/",
    as_json: AsJson = False,
) -> None:
    """List what lies in a folder of a backup."""
    service = client()
    snapshot_id = whole_id(service, server, snapshot)
    address = f"/v1/servers/{server}/snapshots/{snapshot_id}/paths"
    found = list(service.items(address, under=under, limit=200))
    if as_json:
        print_json({"items": found})
        return
    console().print(f"[dim]snapshot {snapshot_id[:12]}[/]")
    print_table(
        ("path", "kind", "size", "mode", "owner", "modified"),
        (
            (
                f"{p['path']} → {p['target']}" if p["target"] else p["path"],
                p["kind"],
                size(p["size"]) if p["kind"] == "file" else "",
                p["mode"],
                f"{p['uid']}:{p['gid']}",
                moment(p["modified_at"]),
            )
            for p in found
        ),
        f"{under} is empty in this snapshot.",
    )


def say_where(job: dict[str, Any]) -> None:
    """Where the restored files are, and how to go back."""
    found = next(step["result"] for step in job["steps"] if step["name"] == "restore")
    for path in found["restored"]:
        console().print(plain(path), soft_wrap=True)
    if found["kept"]:
        console().print(f"{found['kept']} files there are not in the backup and were kept.")
    if found["safety_snapshot"]:
        console().print(f"What was there before is in snapshot {found['safety_snapshot'][:12]}.")


def whole_id(service: ManagedClient, server: str, beginning: str | None) -> str:
    """The id of the server's one snapshot that begins so; None: of the newest verified backup."""
    items = service.get(f"/v1/servers/{server}/snapshots")["items"]
    if beginning is None:
        usable = [s["id"] for s in items if s["verified_at"] and not s["paths"]]
        if not usable:
            raise NotFound(f"{server} has no verified backup")
        return str(usable[0])
    found = [s["id"] for s in items if s["id"].startswith(beginning)]
    if len(found) != 1:
        raise InvalidInput(
            f"{len(found)} snapshots of {server} begin with {beginning!r}",
            hint=f"List them with: managed snapshots list {server}",
        )
    return str(found[0])
