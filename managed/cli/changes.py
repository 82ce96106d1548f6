"""Changing and removing what is on record: servers, customers, plans, windows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from managed.cli.connection import client
from managed.cli.output import AsJson, confirm, say
from managed.cli.planning import Customer, Plan, opens
from managed.cli.servers import Name
from managed.domain.public_keys import fingerprint

NewName = Annotated[str | None, typer.Option("--name", help="Another name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def change_server(
    server: Name,
    name: NewName = None,
    address: Annotated[str | None, typer.Option(help="Where SSH answers now.")] = None,
    port: Annotated[int | None, typer.Option(help="SSH port.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change how a server is called, or where an enrolled one is reached."""
    body = _given(name=name, address=address, ssh_port=port)
    changed = client().patch(f"/v1/servers/{server}", body)
    say(changed, f"{changed['name']} is at {changed['address']}.", as_json=as_json)


def pin_host_key(
    server: Name,
    host_key: Annotated[
        str, typer.Argument(help="The line of /etc/ssh/ssh_host_ed25519_key.pub on the server.")
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Pin another SSH host key, say after a new installation. Compare it at the console first."""
    service = client()
    pinned = service.get(f"/v1/servers/{server}")["host_key"]
    replaced = fingerprint(pinned) if pinned else ""
    question = f"{replaced or 'No key'} is pinned now. Is the new one compared?"
    confirm(question, yes=yes, as_json=as_json)
    body = {"host_key": host_key, "replaced_fingerprint": replaced}
    changed = service.patch(f"/v1/servers/{server}", body)
    say(changed, f"{fingerprint(changed['host_key'])} is pinned.", as_json=as_json)


def change_customer(
    customer: Customer,
    name: NewName = None,
    email: Annotated[str | None, typer.Option(help="Another address.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a customer's name or address."""
    changed = client().patch(f"/v1/customers/{customer}", _given(name=name, email=email))
    say(changed, f"{changed['name']} has the address {changed['email']}.", as_json=as_json)


def remove_customer(customer: Customer, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a customer to whom nothing belongs any more."""
    confirm(f"The customer {customer} will be removed. Go on?", yes=yes, as_json=as_json)
    removed = client().delete(f"/v1/customers/{customer}")
    say(removed, f"{removed['name']} is no customer any more.", as_json=as_json)


def change_plan(
    plan: Plan,
    name: NewName = None,
    only_security: Annotated[
        bool | None,
        typer.Option("--only-security/--all-updates", help="What nightly patches install."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a plan for all servers that are on it."""
    body = _given(name=name, only_security=only_security)
    changed = client().patch(f"/v1/plans/{plan}", body)
    updates = "security updates" if changed["only_security"] else "all updates"
    say(changed, f"{changed['name']} installs {updates}.", as_json=as_json)


def remove_plan(plan: Plan, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a plan that no server is on."""
    confirm(f"The plan {plan} will be removed. Go on?", yes=yes, as_json=as_json)
    removed = client().delete(f"/v1/plans/{plan}")
    say(removed, f"{removed['name']} is no plan any more.", as_json=as_json)


def change_window(
    window: Annotated[str, typer.Argument(metavar="ID", help="The window's id.")],
    rule: Annotated[str | None, typer.Option(help="An RFC 5545 rule.")] = None,
    zone: Annotated[str | None, typer.Option(help="An IANA time zone.")] = None,
    minutes: Annotated[int | None, typer.Option(help="How long it stays open.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change when a window opens. It counts from its next start on."""
    body = _given(rule=rule, zone=zone, minutes=minutes)
    changed = client().patch(f"/v1/windows/{window}", body)
    said = f"{changed['rule']} in {changed['zone']}, {changed['minutes']} minutes."
    say(changed, f"{said} {opens(changed)}", as_json=as_json)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def add_to(
    servers: typer.Typer, customers: typer.Typer, plans: typer.Typer, windows: typer.Typer
) -> None:
    """Register the commands with the groups of what they change."""
    servers.command("change")(change_server)
    servers.command("pin-host-key")(pin_host_key)
    customers.command("change")(change_customer)
    customers.command("remove")(remove_customer)
    plans.command("change")(change_plan)
    plans.command("remove")(remove_plan)
    windows.command("change")(change_window)
