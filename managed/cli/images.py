"""`managed images`: the rescue image, the operating systems, restic."""

from __future__ import annotations

from typing import Annotated

import typer

from images.store import ImageName, built_image
from managed.cli.output import AsJson, print_json, print_table, progress, size
from managed.settings import settings

app = typer.Typer(help="The images that servers are rescued with and made from.")


@app.command()
def build(
    name: Annotated[list[ImageName] | None, typer.Argument(help="Which; all without.")] = None,
    force: Annotated[bool, typer.Option(help="Build even if nothing changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build what is missing or out of date. Takes a minute each, as root."""
    from images.build import build_images

    names = name or list(ImageName)
    build_images(names, settings().images, progress(as_json=as_json), force=force)
    if as_json:
        print_json({"built": [image.value for image in names]})


@app.command("list")
def list_images(as_json: AsJson = False) -> None:
    """List the images, built or not."""
    rows = [_row(name) for name in ImageName]
    if as_json:
        print_json({"items": rows})
        return
    print_table(
        ("image", "status", "built", "size"),
        ((r["name"], r["status"], r["built_at"] or "", r["size"] or "") for r in rows),
        "",
    )


def _row(name: ImageName) -> dict[str, str | None]:
    from images.build import up_to_date_image

    image = built_image(name, settings().images)
    if image is None:
        return {"name": name.value, "status": "missing", "built_at": None, "size": None}
    bytes_used = sum(image.path(artifact).stat().st_size for artifact in image.sha256)
    current = up_to_date_image(name, settings().images) is not None
    return {
        "name": name.value,
        "status": "ok" if current else "out of date",
        "built_at": f"{image.built_at:%Y-%m-%d %H:%M} UTC",
        "size": size(bytes_used),
    }
