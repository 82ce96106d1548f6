"""`managed lab`: this machine's own node, and a hand on the servers that run there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from managed.cli.connection import installation_token
from managed.cli.output import (
    AsJson,
    ask_somebody,
    confirm,
    console,
    plain,
    print_json,
    progress,
)
from managed.domain.connections import Endpoint
from managed.domain.errors import Conflict, InvalidInput, NotFound
from managed.domain.servers import Server
from managed.settings import settings

if TYPE_CHECKING:
    from managed.wiring import Installation

app = typer.Typer(help="This machine's own node and its servers.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The server's name.")]


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start this machine's libvirt, build missing images, and put the node on record."""
    from managed.lab.demo_images import build_missing_images
    from managed.lab.local_node import register_local_node
    from managed.wiring import open_installation, prepare_installation

    prepare_installation(settings())
    build_missing_images(settings(), progress(as_json=as_json))
    node = register_local_node(open_installation(settings()))
    if as_json:
        print_json({"node": node.name, "id": node.node_id, "libvirt_uri": node.libvirt_uri})
    else:
        console().print(f"node {node.name} is up: {node.libvirt_uri}", soft_wrap=True)


@app.command()
def down(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pull the plug of every server on this machine and end its private libvirt."""
    from managed.lab.local_node import end_local_servers
    from managed.lab.service import only_service

    confirm("Every server of this lab is powered off. Go on?", yes=yes, as_json=as_json)
    with only_service(settings()):
        ended = end_local_servers(settings())
    if as_json:
        print_json({"ended": ended})
    else:
        names = ", ".join(ended) or "no server was running"
        console().print(plain(f"ended: {names}; disks are kept"))


@app.command()
def ssh(
    name: Name,
    command: Annotated[
        list[str] | None, typer.Argument(help="A command; without, a shell. After --.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Log into a server (or its open rescue session) as we do, with its pinned host key.

    As JSON: what a command answered, and its exit status. A shell has no such form.
    """
    from managed.lab.interactive_ssh import answered_ssh, interactive_ssh

    if as_json and not command:
        raise InvalidInput(
            "a shell is for people, not for --json",
            hint=f"Give a command: managed lab ssh --json {name} -- uptime",
        )
    endpoint = _endpoint(name)[1]
    if not as_json:
        raise typer.Exit(interactive_ssh(endpoint, command or [], settings().runtime))
    done = answered_ssh(endpoint, command or [], settings().runtime)
    print_json({"exit_status": done.returncode, "stdout": done.stdout, "stderr": done.stderr})
    raise typer.Exit(done.returncode)


@app.command("break")
def break_(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Destroy a server beyond booting: partition table, /boot and /etc are erased."""
    from managed.lab.breakage import break_server

    server, endpoint, installation = _endpoint(name)
    if server.node_id is None:
        raise Conflict(f"{name} is not a server of this lab", hint="Only those may be broken.")
    if not yes:
        ask_somebody(as_json=as_json)
        if not sys.stdin.isatty():
            raise Conflict(
                f"nobody is here to confirm that {name} be destroyed", hint="Give --yes."
            )
        console().print(f"[red]This erases the partition table, /boot and /etc of {name}.[/]")
        if typer.prompt("Type the server's name to go on") != name:
            raise typer.Abort
    found = break_server(installation.shell, endpoint, server.disk_serial)
    if as_json:
        print_json(found)
    else:
        console().print(f"{name} is destroyed. Bring it back with:")
        console().print(f"  managed jobs submit {name} restore --watch")


def _endpoint(name: str) -> tuple[Server, Endpoint, Installation]:
    from managed.wiring import open_installation

    # Whoever may read the token has an installation, and it is his.
    installation_token()
    installation = open_installation(settings())
    server = installation.inventory.by_name(name)
    if server is None:
        raise NotFound(f"there is no server named {name}", hint="See: managed servers list")
    return server, installation.world.endpoint(server.server_id), installation
