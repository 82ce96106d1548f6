"""`managed nodes`: the hypervisor hosts that servers run on."""

from __future__ import annotations

from typing import Annotated

import typer

from managed.cli.connection import client
from managed.cli.output import AsJson, print_fields, print_json, print_table, say

app = typer.Typer(help="The hypervisor hosts that servers run on.", no_args_is_help=True)


@app.command("add")
def add_node(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")],
    libvirt_uri: Annotated[str, typer.Argument(help="Its libvirt, such as qemu:///system.")],
    storage_dir: Annotated[str, typer.Argument(help="The folder for disks, on the node.")],
    as_json: AsJson = False,
) -> None:
    """Take a node under management. Its libvirt is asked first, and its folder is tried."""
    body = {"name": name, "libvirt_uri": libvirt_uri, "storage_dir": storage_dir}
    say(client().post("/v1/nodes", body), f"{name} is a node.", as_json=as_json)


@app.command("list")
def list_nodes(as_json: AsJson = False) -> None:
    """List the nodes, by name."""
    found = list(client().items("/v1/nodes", limit=200))
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("name", "libvirt", "disks", "id"),
        ((node["name"], node["libvirt_uri"], node["storage_dir"], node["id"]) for node in found),
        "There are no nodes yet. Add one with: managed nodes add NAME LIBVIRT_URI STORAGE_DIR",
    )


@app.command()
def show(
    node: Annotated[str, typer.Argument(help="The node's name (or its id).")],
    as_json: AsJson = False,
) -> None:
    """Show one node."""
    found = client().get(f"/v1/nodes/{node}")
    if as_json:
        print_json(found)
        return
    print_fields(found)
