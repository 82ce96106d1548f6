"""`managed customers`, `managed plans`, `managed windows` and `managed pause`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from managed.cli.completion import customer_names, plan_names, server_names
from managed.cli.connection import client
from managed.cli.names import Names
from managed.cli.output import (
    AsJson,
    Cursor,
    Limit,
    Titled,
    moment,
    print_fields,
    print_json,
    print_table,
    say,
)

customers = typer.Typer(help="Who owns servers.", no_args_is_help=True)
plans = typer.Typer(help="What is covered.", no_args_is_help=True)
windows = typer.Typer(help="When patches and backups start by themselves.", no_args_is_help=True)
pause = typer.Typer(
    help="Hold back everything that is not urgent: no window starts anything, no waiting job"
    " begins.",
    no_args_is_help=True,
)

Customer = Annotated[
    str, typer.Argument(help="The customer's name or id.", autocompletion=customer_names)
]
Plan = Annotated[str, typer.Argument(help="The plan's name or id.", autocompletion=plan_names)]
OfKind = Annotated[str | None, typer.Option(help="Only those for patch or for backup.")]
Since = Annotated[
    str | None,
    typer.Option(help="Only from this time on, such as 2026-11-24T02:00:00Z; a week ago."),
]


@customers.command("add")
def add_customer(
    name: Annotated[str, typer.Argument(help="A person or a company.")],
    email: Annotated[str, typer.Argument(help="Where mail reaches them.")],
    as_json: AsJson = False,
) -> None:
    """Add a customer."""
    made = client().post("/v1/customers", {"name": name, "email": email})
    say(made, f"{name} is a customer: {made['id']}", as_json=as_json)


@customers.command("list")
def list_customers(
    email: Annotated[str | None, typer.Option(help="Only of exactly this address.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the customers, by name."""
    found = list(client().items("/v1/customers", email=email, limit=200))
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("name", "email", "id"),
        ((one["name"], one["email"], one["id"]) for one in found),
        "There are no such customers. Add one with: managed customers add NAME EMAIL",
    )


@customers.command("show")
def show_customer(customer: Customer, as_json: AsJson = False) -> None:
    """Show one customer."""
    _show(client().get(f"/v1/customers/{customer}"), as_json=as_json)


@plans.command("add")
def add_plan(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")],
    unmanaged: Annotated[
        bool, typer.Option("--unmanaged", help="The customer looks after the system.")
    ] = False,
    only_security: Annotated[
        bool, typer.Option("--only-security", help="Nightly patches leave other updates out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add a plan."""
    kind = "unmanaged" if unmanaged else "managed"
    body = {"name": name, "kind": kind, "only_security": only_security}
    made = client().post("/v1/plans", body)
    hint = "" if unmanaged else f"  Give it windows: managed windows add plan {name} …"
    say(made, f"{name} is a plan.{hint}", as_json=as_json)


@plans.command("list")
def list_plans(
    kind: Annotated[str | None, typer.Option(help="Only managed or unmanaged ones.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the plans, by name."""
    found = list(client().items("/v1/plans", kind=kind, limit=200))
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("name", "kind", "updates", "id"),
        (
            (p["name"], p["kind"], "security" if p["only_security"] else "all", p["id"])
            for p in found
        ),
        "There are no such plans. Add one with: managed plans add NAME",
    )


@plans.command("show")
def show_plan(plan: Plan, as_json: AsJson = False) -> None:
    """Show one plan."""
    _show(client().get(f"/v1/plans/{plan}"), as_json=as_json)


@windows.command("add")
def add_window(
    owner: Annotated[str, typer.Argument(help="plan, customer or server: the nearest counts.")],
    name: Annotated[str, typer.Argument(help="The owner's name or id.")],
    kind: Annotated[str, typer.Argument(help="What starts: patch or backup.")],
    rule: Annotated[str, typer.Argument(help="An RFC 5545 rule, such as FREQ=DAILY;BYHOUR=2.")],
    zone: Annotated[str, typer.Option(help="An IANA time zone.")] = "UTC",
    minutes: Annotated[int, typer.Option(help="How long it stays open.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Open a window."""
    body = {
        "owner": owner,
        "owner_id": name,
        "job_kind": kind,
        "rule": rule,
        "zone": zone,
        "minutes": minutes,
    }
    made = client().post("/v1/windows", body)
    say(made, opens(made), as_json=as_json)


@windows.command("list")
def list_windows(
    owner: Annotated[
        str | None, typer.Option(help="Only those of a plan, customer or server.")
    ] = None,
    owner_id: Annotated[
        str | None, typer.Option(help="Only of the plan, customer or server with this id.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Only those that are this server's nearest.", autocompletion=server_names
        ),
    ] = None,
    kind: OfKind = None,
    as_json: AsJson = False,
) -> None:
    """List the windows with their next opening."""
    service = client()
    filters = {"owner": owner, "owner_id": owner_id, "server": server, "kind": kind}
    found = list(service.items("/v1/windows", limit=200, **filters))
    if as_json:
        print_json({"items": found})
        return
    names = Names(service)
    for of in ("plan", "customer", "server"):
        names.learn(f"{of}s", (w["owner_id"] for w in found if w["owner"] == of))
    print_table(
        ("window", "opens"),
        (
            (
                Titled(f"{w['job_kind']}, of {names.owner(w['owner'], w['owner_id'])}", w["id"]),
                (w["rule"], span_of(w), next_opening(w)),
            )
            for w in found
        ),
        "There are no such windows; without one nothing starts. See: managed windows add --help",
    )


@windows.command("remove")
def remove_window(
    window: Annotated[str, typer.Argument(metavar="ID", help="The window's id.")],
    as_json: AsJson = False,
) -> None:
    """Close a window for good. What it has started goes on."""
    removed = client().delete(f"/v1/windows/{window}")
    say(removed, f"{removed['job_kind']} starts by it no more.", as_json=as_json)


@windows.command("missed")
def list_missed(
    server: Annotated[
        str | None, typer.Option(help="Only this server's.", autocompletion=server_names)
    ] = None,
    since: Since = None,
    kind: OfKind = None,
    as_json: AsJson = False,
) -> None:
    """List the openings that started nothing, newest first, and why."""
    service = client()
    filters = {"server_id": server, "since": since, "kind": kind}
    found = list(service.items("/v1/missed-windows", limit=200, **filters))
    if as_json:
        print_json({"items": found})
        return
    names = Names(service).servers(one["server_id"] for one in found)
    print_table(
        ("opened, closed", "kind", "server", "reason"),
        (
            (
                (moment(one["starts_at"]), moment(one["ends_at"])),
                one["job_kind"],
                names[one["server_id"]],
                one["reason"],
            )
            for one in found
        ),
        "No window was missed.",
    )


@windows.command("surveys")
def list_surveys(
    server: Annotated[
        str | None, typer.Option(help="Only this server's.", autocompletion=server_names)
    ] = None,
    since: Since = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only these: nothing-to-do, work or unknown.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List what was found on servers whose windows opened, newest first."""
    service = client()
    page = service.get(
        "/v1/surveys", server_id=server, since=since, outcome=outcome, limit=limit, cursor=cursor
    )
    if as_json:
        print_json(page)
        return
    names = Names(service).servers(one["server_id"] for one in page["items"])
    print_table(
        ("opened, asked", "kind", "server", "found"),
        (
            (
                (moment(one["starts_at"]), moment(one["asked_at"])),
                one["job_kind"],
                names[one["server_id"]],
                (one["outcome"], one["detail"]),
            )
            for one in page["items"]
        ),
        "No window has asked any server.",
        following=page["next"],
    )


@pause.command("begin")
def begin_pause(
    reason: Annotated[str, typer.Argument(help="Why, for those who find it.")],
    as_json: AsJson = False,
) -> None:
    """Pause everything that is not urgent. What has begun goes on, so do rescues and restores."""
    begun = client().post("/v1/pause", {"reason": reason})
    say(begun, "Paused. It ends with: managed pause end", as_json=as_json)


@pause.command("end")
def end_pause(as_json: AsJson = False) -> None:
    """End the pause. Windows that are open start what they still can."""
    say(client().delete("/v1/pause"), "Everything is started as usual.", as_json=as_json)


@pause.command("show")
def show_pause(as_json: AsJson = False) -> None:
    """Is everything paused, since when and why?"""
    state = client().get("/v1/pause")
    present = state["pause"]
    if present is None:
        say(state, "Nothing is paused.", as_json=as_json)
        return
    since = moment(present["since"])
    said = f"Everything is paused since {since} by {present['by']}: {present['reason']}"
    say(state, said, as_json=as_json)


def _show(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_fields(found)


def span_of(window: Mapping[str, Any]) -> str:
    return f"in {window['zone']}, for {window['minutes']} minutes"


def next_opening(window: Mapping[str, Any]) -> str:
    """When the window opens next, or why it does not, in a list."""
    opening = window["next_opening"]
    if opening is None:
        return f"does not open: {window['limitation']}"
    return f"next {moment(opening['starts_at'])}"


def opens(window: Mapping[str, Any]) -> str:
    """When the window opens, or why it does not, as a sentence."""
    opening = window["next_opening"]
    if opening is None:
        return f"It is kept, but does not open: {window['limitation']}."
    return f"It opens {moment(opening['starts_at'])}."
