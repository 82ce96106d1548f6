"""`managed cells`: containers with their own systemd, sshd and apt, for trying things on many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from managed.cli.output import AsJson, console, print_json, print_table, progress
from managed.settings import settings

if TYPE_CHECKING:
    from managed.lab.cells import Cell

app = typer.Typer(help="Containers for tests of many servers; need root.", no_args_is_help=True)


@app.command()
def up(
    name: Annotated[list[str], typer.Argument(help="The cells' names.")],
    release: Annotated[str, typer.Option("--os", help="debian-12 or debian-13.")] = "debian-12",
    as_json: AsJson = False,
) -> None:
    """Start cells, made when there are none of these names."""
    from images.sources import resolve_sources
    from managed.lab.cell_image import build_cell_root
    from managed.lab.cells import start_cell

    say = progress(as_json=as_json)
    current = settings()
    sources = resolve_sources(
        current.debian_mirror, current.debian_security_mirror, current.apt_proxy, say
    )
    root = build_cell_root(_folder(), release, sources, say)
    _show([start_cell(_folder(), root, cell) for cell in name], as_json=as_json)


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop and remove every cell."""
    from managed.lab.cells import cells_down

    names = cells_down(_folder())
    if as_json:
        print_json({"removed": names})
    else:
        console().print(f"removed: {', '.join(names)}" if names else "There are no cells.")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the cells."""
    from managed.lab.cells import list_cells

    _show(list_cells(_folder()), as_json=as_json)


def _show(cells: list[Cell], *, as_json: bool) -> None:
    rows = [
        {
            "name": cell.name,
            "status": "running" if cell.is_running else "stopped",
            "address": cell.address,
            "port": cell.port,
            "host_key": cell.host_key,
        }
        for cell in cells
    ]
    if as_json:
        print_json({"items": rows})
        return
    print_table(
        ("name", "status", "ssh"),
        ((r["name"], r["status"], f"root@{r['address']}:{r['port']}") for r in rows),
        "There are no cells.",
    )


def _folder() -> Path:
    return settings().state / "cells"
