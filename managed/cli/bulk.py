"""`managed jobs submit-many`: the same job for many servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from managed.cli.completion import customer_names, plan_names, server_names
from managed.cli.connection import client
from managed.cli.jobs import IdempotencyKey, parameter_value
from managed.cli.output import AsJson, console, print_json, print_table
from managed.client import ManagedClient
from managed.domain.errors import InvalidInput


def submit_many(
    kind: Annotated[
        str, typer.Argument(help="patch, harden, backup, check, enrol, power or unrescue.")
    ],
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="A server's name or id; give it several times.", autocompletion=server_names
        ),
    ] = None,
    plan: Annotated[
        str | None, typer.Option(help="Servers on this plan.", autocompletion=plan_names)
    ] = None,
    customer: Annotated[
        str | None, typer.Option(help="Servers of this customer.", autocompletion=customer_names)
    ] = None,
    node: Annotated[str | None, typer.Option(help="Servers on this node.")] = None,
    status: Annotated[str | None, typer.Option(help="Servers in this state.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Really every server.")] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Such as only_security=true."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen; change nothing.")
    ] = False,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask for the same job on many servers. Several filters are to hold together.

    Exit status 1 when a server is refused; the others have their jobs all the same.
    """
    filters = {"plan": plan, "customer": customer, "node": node, "status": status}
    chosen: dict[str, Any] = {name: value for name, value in filters.items() if value}
    if server:
        chosen["names"] = server
    if every:
        chosen["all"] = True
    if not chosen:
        raise InvalidInput(
            "no server is chosen",
            hint="Give --server, --plan, --customer, --node, --status or --all.",
        )
    job = {**dict(map(parameter_value, parameter or [])), "kind": kind}
    body = {"job": job, "servers": chosen, "dry_run": dry_run}
    answers = list(_answers(client(), body, idempotency_key))
    items = [item for answer in answers for item in answer["items"]]
    refused = sum(answer["refused"] for answer in answers)
    submitted = sum(answer["submitted"] for answer in answers)
    if as_json:
        print_json({"dry_run": dry_run, "submitted": submitted, "refused": refused, "items": items})
    else:
        _print(items, submitted, refused, dry_run=dry_run)
    if refused:
        raise typer.Exit(1)


def _answers(
    service: ManagedClient, body: Mapping[str, Any], key: str | None
) -> Iterator[dict[str, Any]]:
    """Request after request until no server is left; each has a key of its own."""
    cursor: str | None = None
    number = 1
    while True:
        numbered = f"{key}:{number}" if key else None
        answer = service.post("/v1/bulk/jobs", {**body, "cursor": cursor}, idempotency_key=numbered)
        yield answer
        cursor, number = answer["next"], number + 1
        if cursor is None:
            return


def _print(items: list[dict[str, Any]], submitted: int, refused: int, *, dry_run: bool) -> None:
    print_table(
        ("server", "status", "job", "why not"),
        (
            (
                item["server"],
                "refused" if item["refusal"] else "ok",
                item["job_id"] or "",
                item["refusal"]["detail"] if item["refusal"] else "",
            )
            for item in items
        ),
        "No server is meant by this.",
    )
    done = "would be submitted (dry run)" if dry_run else "submitted"
    console().print(f"{submitted} {done}, {refused} refused.")
