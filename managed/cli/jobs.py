"""`managed jobs`: asking for work on servers and watching it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from managed.cli.completion import customer_names, server_names
from managed.cli.connection import client
from managed.cli.following import follow, show_job
from managed.cli.names import Names
from managed.cli.output import (
    AsJson,
    Cursor,
    Limit,
    Titled,
    console,
    duration,
    moment,
    print_json,
    print_table,
)
from managed.domain.errors import InvalidInput

app = typer.Typer(help="Ask for work on servers, watch it, call it off.", no_args_is_help=True)

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show the raw output of programs too.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
IdempotencyKey = Annotated[
    str | None, typer.Option(help="The same key with the same request is carried out once.")
]


@app.command("list")
def list_jobs(
    server: Annotated[
        str | None, typer.Option(help="Only jobs on this server.", autocompletion=server_names)
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    customer: Annotated[
        str | None,
        typer.Option(help="Only on this customer's servers.", autocompletion=customer_names),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only from this time on, such as 2026-11-24T02:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only before this time.")] = None,
    requested_by: Annotated[
        str | None, typer.Option(help="Only what they asked for; exactly as jobs show it.")
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    service = client()
    page = service.get(
        "/v1/jobs",
        server_id=server,
        kind=kind,
        status=status,
        customer=customer,
        since=since,
        until=until,
        requested_by=requested_by,
        limit=limit,
        cursor=cursor,
    )
    if as_json:
        print_json(page)
        return
    names = Names(service).servers(job["server_id"] for job in page["items"])
    print_table(
        ("job", "status, took", "asked for"),
        (
            (
                Titled(f"{job['kind']} on {names[job['server_id']]}", job["id"]),
                (job["status"], duration(job["started_at"], job["finished_at"])),
                (moment(job["created_at"]), f"by {job['requested_by'] or 'nobody'}"),
            )
            for job in page["items"]
        ),
        "There are no such jobs.",
        following=page["next"],
    )


@app.command()
def show(job: JobId, as_json: AsJson = False) -> None:
    """Show one job with its steps."""
    service = client()
    found = service.get(f"/v1/jobs/{job}")
    if as_json:
        print_json(found)
    else:
        show_job(found, Names(service).server(found["server_id"]))


@app.command()
def submit(
    server: Annotated[
        str, typer.Argument(help="The server's name or id.", autocompletion=server_names)
    ],
    kind: Annotated[
        str,
        typer.Argument(
            help="patch, harden, backup, rescue, unrescue, restore, restore-files, check, power or"
            " enrol."
        ),
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE", help="Such as hours=8 or only_security=true."
        ),
    ] = None,
    run_key: Annotated[
        str | None, typer.Option(help="Never run two jobs of the kind on the server with this key.")
    ] = None,
    idempotency_key: IdempotencyKey = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Ask for a job on a server."""
    body: dict[str, Any] = {**dict(map(parameter_value, parameter or [])), "kind": kind}
    if run_key:
        body["run_key"] = run_key
    service = client()
    job = service.post(f"/v1/servers/{server}/jobs", body, idempotency_key=idempotency_key)
    if watch:
        follow(service, job, as_json=as_json, verbose=verbose)
    elif as_json:
        print_json(job)
    else:
        say_submitted(job)


@app.command()
def cancel(
    job: JobId,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "cancelled by hand",
    as_json: AsJson = False,
) -> None:
    """Ask a job to stop at its next safe point."""
    found = client().post(f"/v1/jobs/{job}/cancel", {"reason": reason})
    if as_json:
        print_json(found)
    else:
        console().print(f"The {found['kind']} job is asked to stop; it is {found['status']} now.")


@app.command()
def watch(job: JobId, verbose: Verbose = False, as_json: AsJson = False) -> None:
    """Follow a job live to its end. Exit status 0 only if it succeeds."""
    service = client()
    follow(service, service.get(f"/v1/jobs/{job}"), as_json=as_json, verbose=verbose)


def say_submitted(job: dict[str, Any]) -> None:
    console().print(f"{job['kind']} job {job['id']} is {job['status']}.")
    console().print(f"[dim]Follow it with: managed jobs watch {job['id']}[/]")


def parameter_value(text: str) -> tuple[str, Any]:
    """name=value; the value is read as JSON where it is some, else as text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInput(f"{text!r} is not NAME=VALUE", hint="Give it like this: -p hours=8")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
