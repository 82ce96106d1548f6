"""`managed notifications`: who is told of what went wrong, and what they have been told."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from managed.cli.completion import customer_names
from managed.cli.connection import client
from managed.cli.output import (
    AsJson,
    Cursor,
    Limit,
    console,
    moment,
    plain,
    print_json,
    print_table,
)

app = typer.Typer(help="Who is told of what went wrong.", no_args_is_help=True)

_TARGETS = "/v1/notification-targets"

Occasions = Annotated[
    list[str] | None,
    typer.Option("--occasion", help="job-failed or window-missed; several times for several; all."),
]
OfCustomer = Annotated[
    str | None, typer.Option("--customer", help="Tell of this customer's servers only.")
]
TargetId = Annotated[str, typer.Argument(metavar="ID", help="The target's id.")]


@app.command("targets")
def list_targets(
    customer: Annotated[
        str | None, typer.Option(help="Only this customer's.", autocompletion=customer_names)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List who is told."""
    found = list(client().items(_TARGETS, customer=customer, limit=200))
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("id", "kind", "address", "occasions", "customer"),
        (
            (t["id"], t["kind"], t["address"], ", ".join(t["occasions"]), t["customer_id"])
            for t in found
        ),
        "Nobody is told yet. See: managed notifications add-email --help",
    )


@app.command("add-email")
def add_email(
    address: Annotated[str, typer.Argument(help="One plain mail address.")],
    occasion: Occasions = None,
    customer: OfCustomer = None,
    as_json: AsJson = False,
) -> None:
    """Tell somebody by mail."""
    _say(_add("email", address, occasion, customer), as_json=as_json)


@app.command("add-webhook")
def add_webhook(
    url: Annotated[str, typer.Argument(help="An https URL of a public address.")],
    occasion: Occasions = None,
    customer: OfCustomer = None,
    as_json: AsJson = False,
) -> None:
    """Tell a program by a signed call. Its secret is shown now and never again."""
    made = _add("webhook", url, occasion, customer)
    _say(made, f"Its secret, shown this once: {made['secret']}", as_json=as_json)


@app.command("remove")
def remove_target(target: TargetId, as_json: AsJson = False) -> None:
    """Tell this one no more."""
    removed = client().delete(f"{_TARGETS}/{target}")
    if as_json:
        print_json(removed)
    else:
        console().print(plain(f"{removed['address']} is told no more."), soft_wrap=True)


@app.command("test")
def try_target(target: TargetId, as_json: AsJson = False) -> None:
    """Send a test message now. Exit status 0 only if it was taken."""
    tried = client().post(f"{_TARGETS}/{target}/test")
    if as_json:
        print_json(tried)
    else:
        verdict = "Delivered" if tried["delivered"] else "Not delivered"
        console().print(plain(f"{verdict}: {tried['detail']}. {tried['hint']}"), soft_wrap=True)
    if not tried["delivered"]:
        raise typer.Exit(1)


@app.command("list")
def list_notifications(
    status: Annotated[
        str | None, typer.Option(help="Only those that are waiting, sent or given-up.")
    ] = None,
    customer: Annotated[
        str | None,
        typer.Option(help="Only what this customer's are told.", autocompletion=customer_names),
    ] = None,
    limit: Limit = 200,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List what was told or is to be, newest first, one for each target and incident."""
    page = client().get(
        "/v1/notifications", status=status, customer=customer, limit=limit, cursor=cursor
    )
    if as_json:
        print_json(page)
        return
    print_table(
        ("when", "occasion", "server", "target", "status", "tries", "last error"),
        (
            (
                moment(one["at"]),
                one["occasion"],
                one["server_id"],
                one["target_id"],
                one["status"],
                one["attempts"],
                one["last_error"],
            )
            for one in page["items"]
        ),
        "There is nothing to tell.",
        following=page["next"],
    )


def _add(
    kind: str, address: str, occasions: list[str] | None, customer: str | None
) -> dict[str, Any]:
    body: dict[str, Any] = {"kind": kind, "address": address, "customer": customer}
    if occasions:
        body["occasions"] = occasions
    return client().post(_TARGETS, body)


def _say(made: dict[str, Any], *more: str, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    said = (
        f"{made['address']} is told of {', '.join(made['occasions'])}.",
        *more,
        f"Try it with: managed notifications test {made['id']}",
    )
    for line in said:
        console().print(plain(line), soft_wrap=True)
