"""`managed servers`: the servers under management."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from managed.cli.completion import customer_names, plan_names, server_names
from managed.cli.connection import client
from managed.cli.following import follow
from managed.cli.jobs import IdempotencyKey, Verbose, say_submitted
from managed.cli.names import Names
from managed.cli.output import (
    AsJson,
    confirm,
    console,
    moment,
    plain,
    print_fields,
    print_json,
    print_table,
)
from managed.cli.planning import next_opening, span_of
from managed.client import ApiProblem, ManagedClient
from managed.domain.errors import InvalidInput

app = typer.Typer(help="The servers under management.", no_args_is_help=True)

_NONE_YET = "There are no servers yet. Make one with: managed servers create NAME"

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The server's name (or its id).", autocompletion=server_names
    ),
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow the job to its end.")]


@app.command("list")
def list_servers(
    search: Annotated[
        str | None, typer.Option(help="How the name, address or customer's name begins.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    customer: Annotated[
        str | None, typer.Option(help="Only this customer's.", autocompletion=customer_names)
    ] = None,
    plan: Annotated[
        str | None, typer.Option(help="Only those on this plan.", autocompletion=plan_names)
    ] = None,
    node: Annotated[str | None, typer.Option(help="Only those on this node.")] = None,
    as_json: AsJson = False,
) -> None:
    """List servers, by name."""
    filters = {"search": search, "status": status, "customer": customer, "plan": plan, "node": node}
    found = list(client().items("/v1/servers", limit=200, **filters))
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("name", "status", "system", "ssh", "size", "origin"),
        (
            (s["name"], s["status"], s["operating_system"], _ssh(s), _size(s), s["origin"])
            for s in found
        ),
        "No server is like that." if any(filters.values()) else _NONE_YET,
    )


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one server."""
    service = client()
    found = service.get(f"/v1/servers/{name}")
    if as_json:
        print_json(found)
        return
    names = Names(service)
    forwards = (f"127.0.0.1:{f['host_port']} → {f['guest_port']}" for f in found["forwards"])
    print_fields(
        {
            "name": found["name"],
            "id": found["id"],
            "status": found["status"],
            "origin": found["origin"],
            "customer": names.customer(found["customer_id"]) or "the provider",
            "plan": names.plan(found["plan_id"]) or "none",
            "windows": _windows(service, found["id"]),
            "system": found["operating_system"],
            "size": _size(found),
            "ssh": _ssh(found),
            "host key": found["host_key"],
            "ports": ", ".join(forwards),
            "rescue": _rescue(found["rescue_session"]),
            "node": names.node(found["node_id"]),
            "since": moment(found["created_at"]),
        }
    )


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")],
    operating_system: Annotated[
        str, typer.Option("--os", help="debian-12 or debian-13.")
    ] = "debian-12",
    vcpus: Annotated[int, typer.Option(help="Virtual processors.")] = 1,
    memory: Annotated[int, typer.Option(help="Memory in MiB.")] = 1024,
    disk: Annotated[int, typer.Option(help="Disk in GiB.")] = 10,
    key: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="The customer's public key file."),
    ] = None,
    forward: Annotated[
        list[int] | None, typer.Option(help="A port to reach from here (SSH always is).")
    ] = None,
    node: Annotated[str | None, typer.Option(help="The node, if there are several.")] = None,
    idempotency_key: IdempotencyKey = None,
    watch: Watch = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Make a server and install an operating system on it."""
    body: dict[str, Any] = {
        "name": name,
        "operating_system": operating_system,
        "vcpus": vcpus,
        "memory_mib": memory,
        "disk_gib": disk,
        "authorized_keys": [line for path in key or [] for line in _key_lines(path)],
    }
    if node:
        body["node_id"] = node
    if forward:
        body["forwards"] = [{"guest_port": port} for port in forward]
    service = client()
    answer = service.post("/v1/servers", body, idempotency_key=idempotency_key)
    if watch:
        follow(service, answer["job"], as_json=as_json, verbose=verbose)
    elif as_json:
        print_json(answer)
    else:
        say_submitted(answer["job"])


@app.command()
def enrol(
    name: Annotated[str, typer.Argument(help="The name that it gets here.")],
    address: Annotated[str, typer.Argument(help="IP address or host name.")],
    port: Annotated[int, typer.Option(help="SSH port.")] = 22,
    user: Annotated[str, typer.Option(help="Login name.")] = "root",
    host_key: Annotated[
        str | None,
        typer.Option(help="The line of /etc/ssh/ssh_host_ed25519_key.pub on the server."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
) -> None:
    """Take an existing server under management.

    Without --host-key it shows the fingerprint that the server offers and asks you to compare it.
    """
    service = client()
    body = {
        "name": name,
        "address": address,
        "ssh_port": port,
        "ssh_user": user,
        "host_key": host_key or _compared_host_key(service, address, port, as_json=as_json),
    }
    answer = service.post("/v1/servers/enrol", body, idempotency_key=idempotency_key)
    if as_json:
        print_json(answer)
        return
    out = console()
    out.print(f"{name} is on record. Two things are left:")
    out.print(f"1. Put this line into ~{user}/.ssh/authorized_keys on the server:")
    out.print(answer["authorized_keys_line"], soft_wrap=True, markup=False)
    out.print(f"2. managed jobs submit {name} enrol --watch")


@app.command()
def place(
    name: Name,
    customer: Annotated[
        str | None,
        typer.Option(
            help="The customer's name or id; left out: nobody's.", autocompletion=customer_names
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="The plan's name or id; left out: none.", autocompletion=plan_names),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a server a customer's, on a plan. Their windows count for it from then on."""
    placed = client().put(f"/v1/servers/{name}/placement", {"customer": customer, "plan": plan})
    if as_json:
        print_json(placed)
        return
    console().print(plain(f"{placed['name']} is {customer or 'nobody'}'s, on {plan or 'no plan'}."))


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    idempotency_key: IdempotencyKey = None,
    watch: Watch = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Take a server out of management. One that we made is destroyed; its backups stay."""
    service = client()
    found = service.get(f"/v1/servers/{name}")
    what = "destroyed with its disk" if found["node_id"] else "no longer managed"
    confirm(f"{found['name']} will be {what}. Go on?", yes=yes, as_json=as_json)
    job = service.delete(f"/v1/servers/{found['id']}", idempotency_key=idempotency_key)
    if watch:
        follow(service, job, as_json=as_json, verbose=verbose)
    elif as_json:
        print_json(job)
    else:
        say_submitted(job)


def _compared_host_key(service: ManagedClient, address: str, port: int, *, as_json: bool) -> str:
    """The host key that the server shows, once a person has compared it."""
    if as_json or not sys.stdin.isatty():
        raise InvalidInput(
            "a host key is needed, and nobody is here to compare one",
            hint="Give --host-key with the line of the server's ssh_host_ed25519_key.pub.",
        )
    shown = service.get("/v1/host-key", address=address, port=port)
    out = console()
    out.print(f"{address} port {port} shows the host key {shown['host_key'].split()[0]}")
    out.print(f"[bold]{shown['fingerprint']}[/]")
    out.print("Compare it with what the server's console says:")
    out.print("  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    typer.confirm("Is it the same?", abort=True)
    return str(shown["host_key"])


def _key_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _windows(service: ManagedClient, server_id: str) -> tuple[str, ...]:
    """What starts by itself on the server, and when next; a line or two for each."""
    try:
        found = list(service.items("/v1/windows", server=server_id))
    except ApiProblem as error:
        if error.status == 403:
            return ("not for this token to see",)
        raise
    if not found:
        return ("none: nothing starts by itself",)
    return tuple(
        line
        for one in found
        for line in (
            f"{one['job_kind']}: {one['rule']}, of the {one['owner']}",
            f"  {span_of(one)}, {next_opening(one)}",
        )
    )


def _rescue(session: Mapping[str, Any] | None) -> str:
    if session is None:
        return ""
    until = f"until {moment(session['expires_at'])}" if session["expires_at"] else "for its job"
    return f"open {until}, host key {session['host_key']}"


def _ssh(server: Mapping[str, Any]) -> str:
    return f"{server['ssh_user']}@{server['address']}:{server['ssh_port']}"


def _size(server: Mapping[str, Any]) -> str:
    if server["vcpus"] is None:
        return ""
    return f"{server['vcpus']} CPU, {server['memory_mib']} MiB, {server['disk_gib']} GiB"
